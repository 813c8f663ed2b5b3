/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Masquerade, the way back. */
#pragma once

#include "nat.h"

/* A packet from outside to an address of the node. Returns 1 when it was for a workload and now says so, 0 when it is
 * the node's own, or a negative drop reason. */
static __noinline int nat_reverse(struct __sk_buff *skb, struct pkt *p)
{
	bool error = p->flags & PKT_F_ERROR;
	const struct tuple *t = error ? &p->quote : &p->t;
	struct nat_key k;
	struct nat_value *v;
	struct addr to;
	__be16 port;
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
	v = bpf_map_lookup_elem(&nat_v1, &k);
	if (!v || !nat_paired(&k, v))
		return 0;
	to = v->addr;
	port = v->port;
	if (error)
		err = rewrite_quote(skb, p, &to, port, REWRITE_SRC);
	else
		err = rewrite_port(skb, p, port, REWRITE_DST);
	if (!err)
		err = rewrite_addr(skb, p, &to, REWRITE_DST);
	return err ? err : 1;
}
