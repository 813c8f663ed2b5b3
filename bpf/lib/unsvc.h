/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Services, packet by packet: the way back. */
#pragma once

#include "nat.h"

/* Whether a backend's packet is its answer to a service's client: then it is to leave under p->xlated, the service's address. */
static __noinline bool svc_served(struct pkt *p)
{
	struct nat_key k;
	struct nat_value v;

	nat_key_from(p->flags & PKT_F_ERROR ? &p->quote : &p->t, &k, NAT_REVERSE);
	if (!nat_find(&k, &v))
		return false;
	p->front = v.src;
	p->front_port = v.sport;
	p->xlated = p->front;
	p->xlated_port = p->front_port;
	if (v.dport != k.dport)
		p->own_port = v.dport;
	return true;
}

/* An answer, as its connection's row says. */
static __always_inline int svc_from_backend(struct pkt *p)
{
	return svc_served(p) ? 0 : fail(p, DROP_NAT_NO_MAPPING, FILE_SERVICE, __LINE__);
}

/* Whether a packet that was admitted is such an answer, and not under the service's address yet. */
static __always_inline bool svc_answers(const struct pkt *p)
{
	return p->service && p->flags & PKT_F_REPLY && addr_zero(&p->xlated);
}
