/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Direct server return, on the backend's node: for which service a packet is, and what its answers leave under. */
#pragma once

#include "dsr.h"
#include "svc.h"

/* Returns 1 and the service that the packet names, 0 when it names none. */
static __always_inline int dsr_read(struct __sk_buff *skb, const struct pkt *p, struct addr *front, __be16 *port)
{
	if (pkt_v6(p)) {
		struct dsr6 o;
		__u8 next;

		if (bpf_skb_load_bytes(skb, p->l3 + offsetof(struct ipv6hdr, nexthdr), &next, sizeof(next)) ||
		    next != PROTO_DSTOPTS || bpf_skb_load_bytes(skb, p->l3 + sizeof(struct ipv6hdr), &o, sizeof(o)) ||
		    o.type != DSR_OPT6 || o.len != 2 || o.opt_len != 18)
			return 0;
		__builtin_memcpy(front->b, o.addr, sizeof(o.addr));
		*port = o.port;
	} else {
		struct dsr4 o;

		if (bpf_skb_load_bytes(skb, p->l3 + sizeof(struct iphdr), &o, sizeof(o)) || o.type != DSR_OPT4 ||
		    o.len != sizeof(o))
			return 0;
		addr_from4(front, o.addr);
		*port = o.port;
	}
	return 1;
}

/* Anybody outside can say such a thing: only of what is a service's address here too, or a node port of another node. */
static __always_inline struct lb_frontend *dsr_front(const struct addr *front, __be16 port, __u8 proto)
{
	struct lb_frontend_key k = {.addr = *front, .port = port, .proto = proto, .scope = LB_EXTERNAL};
	__u32 *flags = bpf_map_lookup_elem(&lb_address_v1, front);
	struct ipcache_value *v;

	if (flags)
		return svc_outer(&k, *flags);
	v = bpf_map_lookup_elem(&ipcache_exact_v1, front);
	if (!v || !(v->flags & IPC_F_NODE))
		return NULL;
	lb_any(&k.addr);
	return bpf_map_lookup_elem(&lb_frontend_v1, &k);
}

static __always_inline int dsr_pop4(struct __sk_buff *skb, struct pkt *p)
{
	__be16 was[2], is[2];
	struct dsr4 o;
	__s64 sum;

	if (bpf_skb_load_bytes(skb, p->l3, was, sizeof(was)) ||
	    bpf_skb_load_bytes(skb, p->l3 + sizeof(struct iphdr), &o, sizeof(o)))
		return -1;
	is[0] = was[0] - bpf_htons(sizeof(o) / 4 << 8);
	is[1] = bpf_htons(bpf_ntohs(was[1]) - sizeof(o));
	sum = bpf_csum_diff((__be32 *)was, sizeof(was), (__be32 *)is, sizeof(is), 0);
	sum = bpf_csum_diff((__be32 *)&o, sizeof(o), NULL, 0, sum);
	if (bpf_skb_adjust_room(skb, -(__s32)sizeof(o), BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_FIXED_GSO) ||
	    bpf_skb_store_bytes(skb, p->l3, is, sizeof(is), 0))
		return -1;
	return bpf_l3_csum_replace(skb, p->l3 + offsetof(struct iphdr, check), 0, sum, 0) ? -1 : 0;
}

static __always_inline int dsr_pop6(struct __sk_buff *skb, struct pkt *p)
{
	__be16 len;
	__u8 next;

	if (bpf_skb_load_bytes(skb, p->l3 + offsetof(struct ipv6hdr, payload_len), &len, sizeof(len)) ||
	    bpf_skb_load_bytes(skb, p->l3 + sizeof(struct ipv6hdr), &next, sizeof(next)) ||
	    bpf_skb_adjust_room(skb, -(__s32)sizeof(struct dsr6), BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_FIXED_GSO))
		return -1;
	len = bpf_htons(bpf_ntohs(len) - sizeof(struct dsr6));
	if (bpf_skb_store_bytes(skb, p->l3 + offsetof(struct ipv6hdr, payload_len), &len, sizeof(len),
				BPF_F_RECOMPUTE_CSUM))
		return -1;
	return bpf_skb_store_bytes(skb, p->l3 + offsetof(struct ipv6hdr, nexthdr), &next, sizeof(next),
				   BPF_F_RECOMPUTE_CSUM)
		       ? -1
		       : 0;
}

/* Notes for which service the packet is: p->front. It has its backend's address. */
static __always_inline int dsr_note(struct __sk_buff *skb, struct pkt *p)
{
	struct nat_value *new = &p->nat_to;
	struct nat_key *k = &p->nat;
	int err;

	nat_key_from(&p->t, k, NAT_FORWARD);
	k->dst = p->front;
	k->dport = p->front_port;
	p->service = true;
	p->told = true;
	if (nat_find(k, new) && addr_eq(&new->dst, &p->t.dst) && new->dport == p->t.dport)
		return svc_port(skb, p, new);
	new->src = p->t.src;
	new->dst = p->t.dst;
	new->sport = p->t.sport;
	new->dport = p->t.dport;
	new->slots = 0;
	err = svc_record(skb, p, k, new);
	return err ? err : svc_port(skb, p, new);
}

static __always_inline int dsr_take(struct __sk_buff *skb, struct pkt *p)
{
	struct addr front;
	__be16 port;

	if (!proto_has_ports(p->t.proto) || !dsr_read(skb, p, &front, &port) || !dsr_front(&front, port, p->t.proto))
		return 0;
	if (pkt_v6(p) ? dsr_pop6(skb, p) : dsr_pop4(skb, p))
		return fail(p, DROP_WRITE, FILE_DSR, __LINE__);
	p->l4 -= pkt_v6(p) ? sizeof(struct dsr6) : sizeof(struct dsr4);
	p->plain_header = p->l4 == p->l3 + (pkt_v6(p) ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	p->front = front;
	p->front_port = port;
	return dsr_note(skb, p);
}

/* A packet of a client for a workload of this node: takes out what another node said of it, and notes it. Returns 0, or a
 * negative drop reason. Not static for the verifier's sake, as svc_to_backend. */
__noinline int dsr_pop(struct __sk_buff *skb)
{
	struct pkt *p = pkt_this();

	return p ? dsr_take(skb, p) : -DROP_INVALID;
}
