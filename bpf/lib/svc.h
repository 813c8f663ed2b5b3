/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Services, packet by packet: for what comes from outside, and from workloads whose sockets the node cannot reach. A client's
 * packets go to one backend, which a pair of rows remembers; policy is judged on that backend. */
#pragma once

#include "conn.h"
#include "frontend.h"
#include "outside.h"

enum svc_answer {
	SVC_NONE = 0, /* no service's business */
	SVC_SENT = 1, /* has its backend's address now */
};

enum svc_paired {
	SVC_PAIRED = 0,
	SVC_TAKEN = 1, /* another flow is between the same ends */
};

/* The client is not a workload of this node. */
static __always_inline bool svc_outside(const struct pkt *p)
{
	return p->flags & PKT_F_INGRESS;
}

static __always_inline const struct tuple *svc_tuple(const struct pkt *p)
{
	return p->flags & PKT_F_ERROR ? &p->quote : &p->t;
}

/* The same on all nodes, so that a client whose packets take another way finds the same backend there. */
static __always_inline __u32 svc_hash(const struct tuple *t, const struct lb_frontend *f)
{
	__u64 h = lb_mix(addr_high(&t->src) ^ f->service);

	h = lb_mix(h ^ addr_low(&t->src));
	if (!f->affinity)
		h = lb_mix(h ^ ((__u64)t->sport << 32 | (__u32)t->dport << 16 | t->proto));
	return h;
}

/* A backend for a new flow. */
static __always_inline enum lb_answer svc_pick(const struct tuple *t, const struct lb_frontend *f,
					       struct nat_value *new)
{
	struct lb_affinity_key who = {.client = t->src, .service = f->service, .kind = LB_CLIENT_ADDRESS};
	struct lb_backend to = {};
	enum lb_answer a;

	a = lb_pick(f, &who, f->affinity * NS_PER_SEC, svc_hash(t, f), cfg.flags & CFG_DSR_IPIP, &to);
	new->src = t->src;
	new->sport = t->sport;
	new->dst = to.addr;
	new->dport = to.port;
	new->slots = f->slots;
	return a;
}

/* Whether a connection on record, of the packets that become `v`, may still need it. */
static __always_inline bool svc_alive(const struct nat_key *k, const struct nat_value *v)
{
	struct tuple t = {.src = k->src, .dst = v->dst, .sport = k->sport, .dport = v->dport, .proto = k->proto};
	struct ct_value *c;
	struct ct_key ck;

	ct_key_from(&t, &ck, false);
	c = bpf_map_lookup_elem(&ct_v1, &ck);
	return c && c->expires > bpf_ktime_get_ns() && !ct_closing(c->flags);
}

/* Another service's flow between the same client port and the same backend: the backend could not tell the two apart. */
static __always_inline bool svc_taken(const struct nat_key *k, const struct nat_key *r, const struct nat_value *new)
{
	struct nat_value *held = bpf_map_lookup_elem(&nat_v2, r), h;

	if (!held)
		return false;
	h = *held;
	if ((addr_eq(&h.src, &k->dst) && h.sport == k->dport) || !nat_paired(r, &h))
		return false;
	return svc_alive(k, new);
}

/* Makes a pair that leaves the client its own address and port. Who opens a connection has given up the one before it. Returns enum
 * svc_paired, or a negative drop reason. */
static __noinline int svc_pair(struct pkt *p, const struct nat_key *k, struct nat_value *new)
{
	struct nat_value back;
	struct nat_key r;

	new->created = bpf_ktime_get_ns();
	nat_partner(k, new, &r);
	nat_back(k, new->created, &back);
	if (!ct_opens(p) && svc_taken(k, &r, new))
		return p->t.proto == PROTO_UDP ? SVC_TAKEN : fail(p, DROP_NAT_NO_MAPPING, FILE_SERVICE, __LINE__);
	if (bpf_map_update_elem(&nat_v2, &r, &back, BPF_ANY) || bpf_map_update_elem(&nat_v2, k, new, BPF_ANY))
		return fail(p, DROP_NAT_NO_MAPPING, FILE_SERVICE, __LINE__);
	return SVC_PAIRED;
}

/* The address of the node that a client's packets to a backend elsewhere leave under, so that its answers come back here. */
static __noinline int svc_leave_as(struct __sk_buff *skb, struct pkt *p, struct addr *as)
{
	struct ipcache_value *v = ipcache_find(&p->t.dst);
	int err;

	if (v && v->flags & IPC_F_TUNNEL) {
		router(as, pkt_v6(p));
		return 0;
	}
	err = outside_route(skb, p);
	if (err)
		return err;
	return device_addr(p, as) ? fail(p, DROP_NAT_NO_MAPPING, FILE_SERVICE, __LINE__) : 0;
}

/* A backend whose answers pass this node's programs anyway: a workload of the node, or the node itself. */
static __always_inline bool svc_here(const struct addr *backend)
{
	struct ipcache_value *v;

	if (endpoint_find(backend))
		return true;
	v = bpf_map_lookup_elem(&ipcache_exact_v1, backend);
	return v && v->identity == IDENTITY_HOST;
}

/* A backend on another node that can answer the client itself: a workload, whose node understands what it is told. */
static __always_inline bool svc_direct(const struct pkt *p, const struct addr *backend)
{
	struct ipcache_value *v;

	if (!(cfg.flags & (p->t.proto == PROTO_TCP ? CFG_DSR_TCP : CFG_DSR_UDP)) || !p->plain_header)
		return false;
	v = bpf_map_lookup_elem(&ipcache_exact_v1, backend);
	return v && identity_of_workload(v->identity);
}

/* Puts a new flow on record. The packet has its backend's address already; `new` is without the source it leaves under: its own, the
 * gateway's for a workload that is its own backend and would not believe a packet from itself, or this node's. Of datagrams whose
 * place is taken, the port alone. */
static __always_inline int svc_record(struct __sk_buff *skb, struct pkt *p, struct nat_key *k, struct nat_value *new)
{
	bool hairpin = !svc_outside(p) && addr_eq(&new->dst, &k->src), here = false;
	int err;

	if (!hairpin) {
		here = !svc_outside(p) || svc_here(&new->dst);
		if (here || svc_direct(p, &new->dst)) {
			err = svc_pair(p, k, new);
			if (err <= 0)
				return err;
		}
	}
	if (!nat_speaks(&p->t))
		return fail(p, DROP_NAT_PROTOCOL, FILE_SERVICE, __LINE__);
	if (hairpin) {
		router(&new->src, pkt_v6(p));
	} else if (!here) {
		err = svc_leave_as(skb, p, &new->src);
		if (err)
			return err;
	}
	return nat_lease(skb, k, new) ? fail(p, DROP_NAT_NO_MAPPING, FILE_SERVICE, __LINE__) : 0;
}

/* Gives the packet the port by which the backend knows its client. */
static __noinline int svc_port(struct __sk_buff *skb, struct pkt *p, const struct nat_value *to)
{
	if (to->sport == svc_tuple(p)->sport)
		return 0;
	p->own_port = svc_tuple(p)->sport;
	if (p->flags & PKT_F_ERROR)
		return rewrite_quote(skb, p, &to->src, to->sport, REWRITE_DST);
	return rewrite_port(skb, p, to->sport, REWRITE_SRC);
}

/* Whether a flow on record stays with its backend, though the service may have changed. Who opens a connection, and
 * datagrams, look: the backend must still belong to the service. */
static __always_inline bool svc_stays(const struct lb_frontend *f, const struct nat_key *k, struct nat_value *v)
{
	struct lb_affinity a = {.addr = v->dst, .port = v->dport};

	if (v->slots == f->slots)
		return true;
	if (!lb_member(f->slots, &a))
		return false;
	v->slots = f->slots;
	bpf_map_update_elem(&nat_v2, k, v, BPF_EXIST); /* where it fails, the next packet looks again */
	return true;
}

/* Nobody serves this port: at an address that is nothing but services' that is the end. */
static __always_inline int svc_nobody(struct pkt *p, __u32 flags)
{
	return flags & LB_A_VIP ? fail(p, DROP_NO_SERVICE, FILE_SERVICE, __LINE__) : SVC_NONE;
}

/* Finds the backend of a packet that no row answers for: `to` is what it becomes; it is what a row says where `known`. */
static __noinline int svc_choose(struct pkt *p, __u32 flags, bool known, struct nat_value *to)
{
	const struct tuple *t = svc_tuple(p);
	struct lb_frontend *f = svc_find(t, flags, svc_outside(p));
	enum lb_answer a;

	if (!f)
		return svc_nobody(p, flags);
	p->front = t->dst;
	p->front_port = t->dport;
	if (svc_outside(p) && !svc_admits(f, &t->src))
		return fail(p, DROP_SOURCE_RANGE, FILE_SERVICE, __LINE__);
	if (p->flags & PKT_F_ERROR)
		return fail(p, DROP_NAT_NO_MAPPING, FILE_SERVICE, __LINE__);
	if (known && svc_stays(f, &p->nat, to))
		return SVC_SENT;
	a = svc_pick(t, f, to);
	if (a == LB_GONE) { /* the row has changed since it was read */
		f = svc_find(t, flags, svc_outside(p));
		if (!f)
			return svc_nobody(p, flags);
		a = svc_pick(t, f, to);
	}
	if (a != LB_FRESH && a != LB_KEPT) {
		p->answer = cfg.flags & CFG_REJECT ? ANSWER_UNREACHABLE : ANSWER_NONE;
		return fail(p, DROP_NO_SERVICE, FILE_SERVICE, __LINE__);
	}
	to->created = 0; /* not on record yet */
	return SVC_SENT;
}

/* SCTP's checksum covers the ports: they cannot be changed here. */
static __always_inline bool svc_writable(const struct tuple *t, const struct nat_value *to)
{
	return t->proto != PROTO_SCTP || t->dport == to->dport;
}

static __always_inline int svc_translate(struct __sk_buff *skb, struct pkt *p)
{
	const struct tuple *t = svc_tuple(p);
	__u32 *row = bpf_map_lookup_elem(&lb_address_v1, &t->dst), flags;
	struct nat_value *to = &p->nat_to;
	struct nat_key *k = &p->nat;
	bool known;
	int err;

	if (!row)
		return SVC_NONE;
	flags = *row;
	if (!proto_has_ports(t->proto))
		return svc_nobody(p, flags);
	nat_key_from(t, k, NAT_FORWARD);
	/* Masquerade keeps the destination: such a row is from before there was a service. */
	known = nat_find(k, to) && (!addr_eq(&to->dst, &k->dst) || to->dport != k->dport);
	if (!known || !(p->flags & PKT_F_ERROR || (t->proto == PROTO_TCP && !ct_opens(p)))) {
		err = svc_choose(p, flags, known, to);
		if (err <= 0)
			return err;
	}
	if (!svc_writable(t, to))
		return fail(p, DROP_NAT_PROTOCOL, FILE_SERVICE, __LINE__);
	p->service = true;
	p->front = k->dst;
	p->front_port = k->dport;
	err = nat_to(skb, p, &to->dst, to->dport);
	if (!err && !to->created)
		err = svc_record(skb, p, k, to);
	if (err)
		return err;
	if (addr_eq(&to->src, &k->src)) {
		err = svc_port(skb, p, to);
		return err ? err : SVC_SENT;
	}
	p->xlated = to->src;
	p->xlated_port = to->sport;
	return SVC_SENT;
}

/* A packet of a client. Ports of fragments, and what an ICMP error quotes, are known. Returns enum svc_answer, or a negative
 * drop reason. Not static: the verifier then looks at it once, and not once for each state of a packet that comes here. */
__noinline int svc_to_backend(struct __sk_buff *skb)
{
	struct pkt *p = pkt_this();

	return p ? svc_translate(skb, p) : -DROP_INVALID;
}
