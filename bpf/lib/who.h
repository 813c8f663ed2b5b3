/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Who is behind an address. */
#pragma once

#include "../maps/endpoint.h"
#include "../maps/ipcache.h"
#include "cfg.h"
#include "pkt.h"

enum identity {
	IDENTITY_UNKNOWN = 0,
	IDENTITY_HOST = 1,
	IDENTITY_WORLD = 2,
	IDENTITY_UNMANAGED = 3,
	IDENTITY_INIT = 5,
	IDENTITY_REMOTE_NODE = 6,
	IDENTITY_WORLD4 = 9,
	IDENTITY_WORLD6 = 10,
	IDENTITY_WELL_KNOWN = 100, /* from here on numbers are given to workloads, */
	IDENTITY_LOCAL = 1 << 24,  /* up to here */
};

#define IDENTITY_SCOPE_CIDR   1 /* top byte of this node's own numbers for prefixes outside */
#define IDENTITY_SCOPE_REMOTE 2 /* top byte of this node's own numbers for other nodes */

/* Those of workloads: what a node may claim for an address whose row has not come yet. */
static __always_inline bool identity_of_workload(__u32 id)
{
	return id == IDENTITY_UNMANAGED || id == IDENTITY_INIT || (id >= IDENTITY_WELL_KNOWN && id < IDENTITY_LOCAL);
}

/* Of no node and no workload, and the same on all nodes: what a node may say of whom it sends on behalf of. */
static __always_inline bool identity_outside(__u32 id)
{
	return id == IDENTITY_WORLD || id == IDENTITY_WORLD4 || id == IDENTITY_WORLD6;
}

/* Outside, who somebody is follows from the address already. */
static __always_inline bool identity_by_address(__u32 id)
{
	return identity_outside(id) || id >> 24 == IDENTITY_SCOPE_CIDR;
}

static __always_inline struct ipcache_value *ipcache_find(const struct addr *a)
{
	struct ipcache_key k = {.prefixlen = 32 + 128};
	struct ipcache_value *v = bpf_map_lookup_elem(&ipcache_exact_v1, a);

	if (v)
		return v;
	k.addr = *a;
	return bpf_map_lookup_elem(&ipcache_v1, &k);
}

static __always_inline struct endpoint *endpoint_find(const struct addr *a)
{
	return bpf_map_lookup_elem(&endpoints_v1, a);
}

static __always_inline void who_local(struct who *w, const struct endpoint *ep)
{
	w->identity = ep->identity;
	w->set = ep->policy_set;
	w->ep = ep->id;
	w->flags = ep->flags;
}

static __always_inline void who_remote(struct who *w, __u32 identity)
{
	w->identity = identity;
	w->set = 0;
	w->ep = 0;
	w->flags = 0;
}

/* The destination is a workload of this node. */
static __always_inline void dest_local(struct pkt *p, const struct endpoint *ep)
{
	who_local(&p->to, ep);
	p->dest.ifindex = ep->ifindex;
	__builtin_memcpy(p->dest.mac, ep->mac, sizeof(p->dest.mac));
	__builtin_memcpy(p->dest.host_mac, ep->host_mac, sizeof(p->dest.host_mac));
}

/* The destination is not; `v` is NULL when nobody knows it. */
static __always_inline void dest_remote(struct pkt *p, const struct ipcache_value *v)
{
	who_remote(&p->to, v ? v->identity : IDENTITY_UNKNOWN);
	if (!v)
		return;
	p->dest.flags = v->flags;
	p->dest.peer = v->tunnel;
}

/* The workloads' gateway: the node's address in its pod range. */
/* The compiler knows what a constant holds unless it is read as volatile, which the type of an argument would take away:
 * what the loader has put there is read here. */
static __always_inline void router(struct addr *to, bool v6)
{
	for (int i = 0; i < 16; i++)
		to->b[i] = v6 ? cfg.router6.b[i] : cfg.router4.b[i];
}
