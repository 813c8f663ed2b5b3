/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Which service a packet's destination is, and who may ask it. */
#pragma once

#include "lb.h"
#include "pkt.h"

/* What somebody from outside finds at an address. */
static __always_inline struct lb_frontend *svc_outer(struct lb_frontend_key *k, __u32 flags)
{
	struct lb_frontend *f;

	k->scope = LB_EXTERNAL;
	f = bpf_map_lookup_elem(&lb_frontend_v1, k);
	if (f || !(flags & LB_A_NODE))
		return f;
	lb_any(&k->addr);
	return bpf_map_lookup_elem(&lb_frontend_v1, k);
}

static __always_inline struct lb_frontend *svc_find(const struct tuple *t, __u32 flags, bool outside)
{
	struct lb_frontend_key k = {.addr = t->dst, .port = t->dport, .proto = t->proto};

	return outside ? svc_outer(&k, flags) : lb_find(&k, flags);
}

/* Whether a client may come from outside. */
static __always_inline bool svc_admits(const struct lb_frontend *f, const struct addr *client)
{
	struct lb_source_key k = {.prefixlen = 32 + 128, .ranges = f->ranges, .addr = *client};

	if (!f->ranges)
		return true;
	return !bpf_map_lookup_elem(&lb_source_v1, &k) == !!(f->flags & LB_F_RANGES_DENY);
}

/* Whether what comes from outside with such a destination is a service's business. */
static __always_inline bool svc_wants(const struct tuple *t)
{
	__u32 *flags = bpf_map_lookup_elem(&lb_address_v1, &t->dst);

	return flags && (*flags & LB_A_VIP || svc_find(t, *flags, true));
}
