/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Translation, what all ways share. Two rows per connection, of which the kernel may evict either: they count only
 * together. */
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

/* The other row of a pair: what the packets look like that travel against those which become `v`. */
static __always_inline void nat_partner(const struct nat_key *k, const struct nat_value *v, struct nat_key *o)
{
	o->src = v->dst;
	o->dst = v->src;
	o->sport = v->dport;
	o->dport = v->sport;
	o->proto = k->proto;
	o->dir = !k->dir;
	o->pad[0] = 0;
	o->pad[1] = 0;
}

/* What the other row of a pair makes of its packets. */
static __always_inline void nat_back(const struct nat_key *k, __u64 created, struct nat_value *back)
{
	back->src = k->dst;
	back->dst = k->src;
	back->sport = k->dport;
	back->dport = k->sport;
	back->slots = 0;
	back->created = created;
}

static __always_inline bool nat_paired(const struct nat_key *k, const struct nat_value *v)
{
	struct nat_key o;
	struct nat_value *other;

	nat_partner(k, v, &o);
	other = bpf_map_lookup_elem(&nat_v2, &o);
	return other && other->created == v->created;
}

/* What a row says, if the pair is whole. The row may become another's any time: what is checked is the copy, and nothing is
 * read after that. */
static __always_inline bool nat_find(const struct nat_key *k, struct nat_value *v)
{
	struct nat_value *row = bpf_map_lookup_elem(&nat_v2, k);

	if (!row)
		return false;
	*v = *row;
	return nat_paired(k, v);
}

/* Sends the packet to another destination; an ICMP error quotes what came from there. */
static __noinline int nat_to(struct __sk_buff *skb, struct pkt *p, const struct addr *to, __be16 port)
{
	int err;

	if (p->flags & PKT_F_ERROR)
		err = rewrite_quote(skb, p, to, port, REWRITE_SRC);
	else
		err = rewrite_port(skb, p, port, REWRITE_DST);
	return err ? err : rewrite_addr(skb, p, to, REWRITE_DST);
}

/* To the port that a service's client has; an ICMP error quotes what came from there. */
static __always_inline int nat_own_port(struct __sk_buff *skb, struct pkt *p)
{
	if (p->flags & PKT_F_ERROR)
		return rewrite_quote(skb, p, &p->t.dst, p->own_port, REWRITE_SRC);
	return rewrite_port(skb, p, p->own_port, REWRITE_DST);
}

/* Sends the packet under p->xlated; an ICMP error quotes what went there. Events name who it is really from: p->t stays. */
static __noinline int nat_as(struct __sk_buff *skb, struct pkt *p)
{
	struct addr own = p->t.src;
	__be16 port = p->t.sport;
	int err;

	if (p->flags & PKT_F_ERROR)
		err = rewrite_quote(skb, p, &p->xlated, p->xlated_port, REWRITE_DST);
	else
		err = rewrite_port(skb, p, p->xlated_port, REWRITE_SRC);
	if (!err && p->own_port)
		err = nat_own_port(skb, p);
	if (!err)
		err = rewrite_addr(skb, p, &p->xlated, REWRITE_SRC);
	p->t.src = own;
	p->t.sport = port;
	return err;
}
