/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* May it: one policy set asked about one peer. */
#pragma once

#include "../maps/endpoint.h"
#include "../maps/node.h"
#include "../maps/policy.h"
#include "parse.h"

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
	__u8 pad;
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

/* Fails closed: an identity without a class, or a set without a row, is no permission. */
static __noinline int policy_ask(struct pkt *p, const struct question *q, struct answer *a)
{
	struct policy_key k = {.set = q->set, .dir = q->dir};
	struct policy_value *v;
	struct policy_entry e;
	__u32 peer = q->peer, *class = bpf_map_lookup_elem(&class_v1, &peer);

	if (!class)
		return fail(p, DROP_IDENTITY, FILE_POLICY, __LINE__);
	k.class = *class;
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
