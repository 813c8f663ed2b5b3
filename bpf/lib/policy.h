/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* May it: one policy set asked about one peer. */
#pragma once

#include "../maps/endpoint.h"
#include "../maps/node.h"
#include "../maps/policy.h"
#include "parse.h"
#include "who.h"

/* How specific the decision was, numbers of the flow API's policy_match_type. */
enum policy_match {
	MATCH_NONE = 0,
	MATCH_L3 = 1,
	MATCH_L3_L4 = 2,
	MATCH_L4 = 3,
	MATCH_ALL = 4,
	MATCH_L3_PROTO = 5,
	MATCH_PROTO = 6,
};

struct question {
	__u32 set;
	__u32 peer; /* identity */
	__u32 dir;  /* enum policy_dir */
	__u16 port; /* host byte order; ICMP: type */
	__u8 proto;
	bool sender; /* the peer sends this packet, rather than getting it */
};

struct answer {
	__u32 rule;
	__u8 verdict; /* enum policy_verdict */
	__u8 match;   /* enum policy_match */
	bool by_default;
};

static __always_inline __u8 policy_match(bool any_class, const struct policy_entry *e)
{
	if (!e->proto)
		return any_class ? MATCH_ALL : MATCH_L3;
	if (!e->port_lo && e->port_hi == 0xffff)
		return any_class ? MATCH_PROTO : MATCH_L3_PROTO;
	return any_class ? MATCH_L4 : MATCH_L3_L4;
}

static __always_inline bool policy_entry_covers(const struct policy_entry *e, const struct question *q)
{
	return !e->proto || (e->proto == q->proto && q->port >= e->port_lo && q->port <= e->port_hi);
}

/* The list is long: longest prefix of the port for the protocol, then what holds for any. */
static __always_inline struct policy_entry *policy_overflow(const struct policy_key *k, const struct question *q)
{
	struct policy_overflow_key o = {
		.prefixlen = 96,
		.set = k->set,
		.class = k->class,
		.dir = k->dir,
		.proto = q->proto,
		.port = bpf_htons(q->port),
	};
	struct policy_entry *e = bpf_map_lookup_elem(&policy_overflow_v1, &o);

	if (e)
		return e;
	o.proto = 0;
	o.port = 0;
	return bpf_map_lookup_elem(&policy_overflow_v1, &o);
}

/* Copies the deciding entry out: a pointer into the list would be another state to the verifier for each place in it. */
static __always_inline bool policy_find(struct policy_value *v, const struct policy_key *k, const struct question *q,
					struct policy_entry *out)
{
	struct policy_entry *e;

	if (v->flags & POLICY_F_OVERFLOW) {
		e = policy_overflow(k, q);
		if (e)
			*out = *e;
		return e;
	}
	for (int i = 0; i < POLICY_LIST_MAX; i++) {
		if (i >= v->count)
			return false;
		e = &v->entry[i];
		if (policy_entry_covers(e, q)) {
			*out = *e;
			return true;
		}
	}
	return false;
}

/* The class of a workload or node where it lives: `class`, that of its identity, unless a block is around the address. 0: it is
 * not known to live there, and the block may deny. */
static __noinline __u32 policy_class_at(const struct pkt *p, const struct question *q, __u32 class)
{
	const struct tuple *t = p->flags & PKT_F_ERROR ? &p->quote : &p->t;
	struct area_key k = {.prefixlen = 32 + 128, .family = FAMILY_IPV6, .addr = q->sender ? t->src : t->dst};
	struct peer peer = {.identity = q->peer};
	struct area *area;
	__u32 *at;

	if (addr_is4(&k.addr))
		k.family = FAMILY_IPV4;
	area = bpf_map_lookup_elem(&area_v1, &k);
	if (!area)
		return class;
	peer.area = area->id;
	at = bpf_map_lookup_elem(&class_at_v1, &peer);
	if (at)
		return *at;
	return area->flags & AREA_F_STRICT ? 0 : class;
}

/* The class of a peer; 0 if it is unknown. */
static __always_inline __u32 policy_class(const struct pkt *p, const struct question *q)
{
	__u32 peer = q->peer, *class = bpf_map_lookup_elem(&class_v1, &peer);

	if (!class)
		return 0;
	return identity_by_address(peer) ? *class : policy_class_at(p, q, *class);
}

/* Fails closed: a peer without a class, or a set without a row, is no permission. */
static __noinline int policy_ask(struct pkt *p, const struct question *q, struct answer *a)
{
	struct policy_key k = {.set = q->set, .dir = q->dir, .class = policy_class(p, q)};
	struct policy_value *v;
	struct policy_entry e;

	if (!k.class)
		return fail(p, DROP_IDENTITY, FILE_POLICY, __LINE__);
	v = bpf_map_lookup_elem(&policy_v1, &k);
	if (!v) {
		k.class = CLASS_ANY;
		v = bpf_map_lookup_elem(&policy_v1, &k);
		if (!v)
			return fail(p, DROP_NO_POLICY, FILE_POLICY, __LINE__);
	}
	if (policy_find(v, &k, q, &e)) {
		a->rule = e.rule;
		a->verdict = e.verdict;
		a->match = policy_match(k.class == CLASS_ANY, &e);
		a->by_default = false;
	} else {
		a->rule = v->default_rule;
		a->verdict = v->default_verdict;
		a->match = v->default_verdict == VERDICT_ALLOW ? MATCH_ALL : MATCH_NONE;
		a->by_default = true;
	}
	return 0;
}
