/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Between a service's client outside and its backend on another node: the node sends on, under its own address there and the
 * service's back. */
#pragma once

#include "outside.h"

/* Nobody but a client's packets, which have a backend's address by now, and answers to them, go on: they have p->xlated, or are to be answered directly. A
 * backend of the node's own stack is the end of the way. */
static __always_inline int forward_find(struct pkt *p)
{
	dest_remote(p, ipcache_find(&p->t.dst));
	if (p->service && p->to.identity == IDENTITY_HOST)
		return 0;
	if ((addr_zero(&p->xlated) && !p->service) || p->dest.flags & IPC_F_LOCAL_CIDR ||
	    p->to.identity == IDENTITY_HOST)
		return fail(p, DROP_UNROUTABLE, FILE_FORWARD, __LINE__);
	p->one_way = addr_zero(&p->xlated);
	if (p->one_way && dsr_due(p))
		p->room = dsr_len(p);
	return 0;
}

/* Sends on what was admitted. */
static __noinline int forward(struct __sk_buff *skb, struct pkt *p)
{
	if (p->to.identity == IDENTITY_HOST)
		return deliver_stack(skb, p);
	if (p->hop <= 1)
		return fail(p, DROP_TTL, FILE_FORWARD, __LINE__);
	if (!(p->dest.flags & IPC_F_TUNNEL))
		return outside_routed(skb, p);
	/* Only this node knows who it is: a CIDR's identity is a number of its own. */
	if (!identity_outside(p->from.identity))
		p->from.identity =
			p->from.identity >> 24 == IDENTITY_SCOPE_REMOTE ? IDENTITY_REMOTE_NODE : IDENTITY_WORLD;
	return outside_tunnel(skb, p);
}
