/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Translation, what all ways share. */
#pragma once

#include "pair.h"
#include "rewrite.h"

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
