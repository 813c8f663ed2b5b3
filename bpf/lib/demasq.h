/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* The way back, to an address of the node. */
#pragma once

#include "nat.h"

enum nat_answers {
	NAT_ANSWERS_ALL,
	NAT_ANSWERS_SERVED, /* to a service's client, whom the node spoke for; not to what workloads sent */
};

/* A packet from elsewhere to an address of the node. Returns 1 when it was for somebody else and now says so, 0 when it is
 * the node's own, or a negative drop reason. Where the sender answers for a service, p->xlated is that. */
static __noinline int nat_reverse(struct __sk_buff *skb, struct pkt *p, enum nat_answers which)
{
	const struct tuple *t = p->flags & PKT_F_ERROR ? &p->quote : &p->t;
	struct nat_key k;
	struct nat_value to;
	int err;

	if (!nat_speaks(t))
		return 0;
	/* Who pings the node may use an id that a workload pings them with. An error about the node's reply travels as such a
	 * request does. */
	if (proto_is_icmp(t->proto) && t->type == icmp_echo_request(t->proto, t->type))
		return 0;
	nat_key_from(t, &k, NAT_REVERSE);
	if (!nat_in_range(k.dport))
		return 0;
	if (!nat_find(&k, &to))
		return 0;
	if (!addr_eq(&to.src, &k.src) || to.sport != k.sport) {
		p->front = to.src;
		p->front_port = to.sport;
		p->xlated = p->front;
		p->xlated_port = p->front_port;
	} else if (which == NAT_ANSWERS_SERVED) {
		return 0;
	}
	err = nat_to(skb, p, &to.dst, to.dport);
	return err ? err : 1;
}
