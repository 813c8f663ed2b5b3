/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Direct server return by encapsulation, on the backend's node: a node's outer packet comes off, and what was inside is the packet
 * in hand. */
#pragma once

#include "undsr.h"

enum {
	UNWRAP_STEPS = 20, /* a set has 2^20 slots at most */
};

/* Whether it may be such a packet, by its outer header. To a workload: other nodes send to the backend itself. */
static __always_inline bool wrapped(const struct pkt *p)
{
	if (!(cfg.flags & CFG_SERVICES) || !p->plain_header || p->flags & (PKT_F_FIRST | PKT_F_LATER))
		return false;
	if (wrap_ipip())
		return p->t.proto == (pkt_v6(p) ? PROTO_IPV6 : PROTO_IPIP);
	return wrap_geneve() && p->t.proto == PROTO_UDP && p->t.dport == bpf_htons(cfg.tunnel_port);
}

static __always_inline bool unwrap_ours(const struct geneve *g, const struct ethhdr *eth, bool v6)
{
	return g->opt_len == (v6 ? 24 : 12) / 4 && g->flags == GENEVE_F_CRITICAL && g->proto == bpf_htons(ETH_P_TEB) &&
	       g->vni == bpf_htonl(GENEVE_WORLD << 8) && g->class == bpf_htons(GENEVE_CLASS) &&
	       g->type == GENEVE_SERVICE && g->len == (v6 ? 20 : 8) / 4 &&
	       eth->h_proto == (v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP));
}

/* Whether the tunnel's header says for which service the packet inside is, and for which. */
static __always_inline bool unwrap_read(struct __sk_buff *skb, const struct pkt *p, struct addr *front, __be16 *port)
{
	if (pkt_v6(p)) {
		struct geneve6 h;

		if (p->l4_len < sizeof(h) || bpf_skb_load_bytes(skb, p->l4, &h, sizeof(h)) ||
		    !unwrap_ours(&h.geneve, &h.eth, true))
			return false;
		__builtin_memcpy(front->b, h.addr, sizeof(h.addr));
		*port = h.port;
	} else {
		struct geneve4 h;

		if (p->l4_len < sizeof(h) || bpf_skb_load_bytes(skb, p->l4, &h, sizeof(h)) ||
		    !unwrap_ours(&h.geneve, &h.eth, false))
			return false;
		addr_from4(front, h.addr);
		*port = h.port;
	}
	return true;
}

/* Only nodes of the cluster are believed, each under its own address. */
static __always_inline bool unwrap_trusts(const struct addr *sender)
{
	struct ipcache_value *v = bpf_map_lookup_elem(&ipcache_exact_v1, sender);

	return v && v->flags & IPC_F_NODE && v->identity != IDENTITY_HOST;
}

/* Takes the outer packet off. `to` is the backend. */
static __always_inline int unwrap_take(struct __sk_buff *skb, struct pkt *p)
{
	struct addr to = p->t.dst, front = {};
	bool v6 = pkt_v6(p);
	__be16 port = 0;
	int err;

	if (!wrap_ipip() && !unwrap_read(skb, p, &front, &port))
		return 0; /* a workload may have a use of its own for the port */
	if (!unwrap_trusts(&p->t.src))
		return fail(p, DROP_UNKNOWN_SENDER, FILE_DSR, __LINE__);
	if (bpf_skb_adjust_room(skb, -(__s32)wrap_len(v6), BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return fail(p, DROP_TRUNCATED, FILE_DSR, __LINE__);
	pkt_again(p);
	err = parse_at(skb, p, p->l3 ? L3_OFF : 0);
	if (err)
		return err;
	if (!wrap_ipip() && !addr_eq(&p->t.dst, &to))
		return fail(p, DROP_INVALID, FILE_DSR, __LINE__);
	p->told = true;
	p->backend = to;
	p->front = front;
	p->front_port = port;
	return 0;
}

/* Not static for the verifier's sake, as svc_to_backend. */
__noinline int unwrap(struct __sk_buff *skb)
{
	struct pkt *p = pkt_this();

	return p ? unwrap_take(skb, p) : -DROP_INVALID;
}

/* A slot of a backend, of which no more is known than its address. Slots are in the order of addresses. */
static __always_inline struct lb_backend *unwrap_slot(__u32 slots, __u32 count, const struct addr *backend)
{
	struct lb_slot_key k = {.slots = slots};
	__u32 from = 0, to = count;
	struct lb_backend *b;

	for (int i = 0; i < UNWRAP_STEPS && from < to; i++) {
		k.index = from + (to - from) / 2;
		b = bpf_map_lookup_elem(&lb_slot_v1, &k);
		if (!b || addr_eq(&b->addr, backend))
			return b;
		if (addr_less(&b->addr, backend))
			from = k.index + 1;
		else
			to = k.index;
	}
	return NULL;
}

/* IPIP says the backend's address but not its port. It is where the client's hash leads, if both nodes know the same backends; else
 * what the address has; or, of one that gets no new flows but keeps its clients, what others have. */
static __always_inline bool unwrap_port(const struct lb_frontend *f, const struct tuple *t, struct nat_value *to)
{
	__u32 slots = f->slots, count = f->count;
	struct lb_slot_key k = {.slots = slots};
	struct lb_affinity a = {.addr = to->dst};
	struct lb_backend *b;

	if (!count)
		return false;
	k.index = lb_index(slots, count, f->table, svc_hash(t, f), true);
	b = bpf_map_lookup_elem(&lb_slot_v1, &k);
	if (!b)
		return false; /* the set is gone */
	a.port = b->port;
	if (!addr_eq(&b->addr, &to->dst))
		b = unwrap_slot(slots, count, &to->dst);
	to->dport = b ? b->port : a.port;
	return b || lb_member(slots, &a);
}

/* Which port of the backend a packet is for, of which no row says so. */
static __noinline int unwrap_choose(struct pkt *p, bool known, struct nat_value *to)
{
	const struct tuple *t = svc_tuple(p);
	struct lb_frontend *f = dsr_front(&t->dst, t->dport, t->proto);

	if (!f)
		return fail(p, DROP_NO_SERVICE, FILE_DSR, __LINE__);
	if (p->flags & PKT_F_ERROR)
		return fail(p, DROP_NAT_NO_MAPPING, FILE_DSR, __LINE__);
	if (known && svc_stays(f, &p->nat, to))
		return 0;
	to->src = t->src;
	to->dst = p->backend;
	to->sport = t->sport;
	to->slots = f->slots;
	to->created = 0; /* not on record yet */
	return unwrap_port(f, t, to) ? 0 : fail(p, DROP_NO_SERVICE, FILE_DSR, __LINE__);
}

/* IPIP: the client's own packet, to a service, becomes one for the backend that the other node chose. */
static __always_inline int unwrap_land(struct __sk_buff *skb, struct pkt *p)
{
	const struct tuple *t = svc_tuple(p);
	struct nat_value *to = &p->nat_to;
	struct nat_key *k = &p->nat;
	bool known;
	int err;

	if (!proto_has_ports(t->proto))
		return fail(p, DROP_NO_SERVICE, FILE_DSR, __LINE__);
	nat_key_from(t, k, NAT_FORWARD);
	known = nat_find(k, to) && addr_eq(&to->dst, &p->backend);
	if (!known || !(p->flags & PKT_F_ERROR || (t->proto == PROTO_TCP && !ct_opens(p)))) {
		err = unwrap_choose(p, known, to);
		if (err)
			return err;
	}
	if (!svc_writable(t, to))
		return fail(p, DROP_NAT_PROTOCOL, FILE_DSR, __LINE__);
	p->service = true;
	p->front = k->dst;
	p->front_port = k->dport;
	err = nat_to(skb, p, &to->dst, to->dport);
	if (!err && !to->created)
		err = svc_record(skb, p, k, to);
	return err ? err : svc_port(skb, p, to);
}

/* Notes for which service a packet is that another node has sent on so. It comes from who may speak. */
static __always_inline int unwrap_note(struct __sk_buff *skb, struct pkt *p)
{
	if (wrap_ipip())
		return unwrap_land(skb, p);
	if (!proto_has_ports(p->t.proto) || !dsr_front(&p->front, p->front_port, p->t.proto))
		return fail(p, DROP_NO_SERVICE, FILE_DSR, __LINE__);
	return dsr_note(skb, p);
}

__noinline int unwrapped(struct __sk_buff *skb)
{
	struct pkt *p = pkt_this();

	return p ? unwrap_note(skb, p) : -DROP_INVALID;
}
