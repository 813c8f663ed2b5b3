/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Masquerade, what both ways share. Two rows per connection, of which the kernel may evict either: they
 * count only together. */
#pragma once

#include "../maps/nat.h"
#include "cfg.h"
#include "rewrite.h"

static __always_inline bool nat_in_range(__be16 port)
{
	__u16 p = bpf_ntohs(port);

	return p >= cfg.masq_port_min && p <= cfg.masq_port_max;
}

static __always_inline bool nat_speaks(const struct tuple *t)
{
	if (proto_is_icmp(t->proto))
		return icmp_echo_request(t->proto, t->type);
	return t->proto == PROTO_TCP || t->proto == PROTO_UDP;
}

static __always_inline void nat_key_from(const struct tuple *t, struct nat_key *k, enum nat_dir dir)
{
	bool icmp = proto_is_icmp(t->proto);

	k->src = t->src;
	k->dst = t->dst;
	k->sport = icmp && dir == NAT_REVERSE ? 0 : t->sport;
	k->dport = icmp && dir == NAT_REVERSE ? t->sport : t->dport;
	k->proto = t->proto;
	k->dir = dir;
	k->pad[0] = 0;
	k->pad[1] = 0;
}

/* The other row of a pair: what `k`, translated to `v`, is in the other direction. */
static __always_inline void nat_partner(const struct nat_key *k, const struct nat_value *v, struct nat_key *o)
{
	o->src = k->dst;
	o->dst = v->addr;
	o->sport = k->dport;
	o->dport = v->port;
	o->proto = k->proto;
	o->dir = NAT_REVERSE;
	o->pad[0] = 0;
	o->pad[1] = 0;
	if (k->dir == NAT_REVERSE) {
		o->src = v->addr;
		o->dst = k->src;
		o->sport = v->port;
		o->dport = k->sport;
		o->dir = NAT_FORWARD;
	}
}

static __always_inline bool nat_paired(const struct nat_key *k, const struct nat_value *v)
{
	struct nat_key o;
	struct nat_value *other;

	nat_partner(k, v, &o);
	other = bpf_map_lookup_elem(&nat_v1, &o);
	return other && other->created == v->created;
}
