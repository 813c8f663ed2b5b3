/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Which backend: the same lookups for one service and for sixty thousand. */
#pragma once

#include "../maps/lb.h"

#define NS_PER_SEC 1000000000ULL

/* What becomes of a new flow. */
enum lb_answer {
	LB_NONE,    /* no service's business */
	LB_REFUSED, /* a VIP, but no service at this port */
	LB_NOBODY,  /* a service without a backend */
	LB_GONE,    /* the set went meanwhile: its frontend has another by now */
	LB_KEPT,    /* the client stays where it was */
	LB_FRESH,
};

/* The frontend at exactly this address, of the inner scope before the outer one. */
static __always_inline struct lb_frontend *lb_frontend_at(struct lb_frontend_key *k)
{
	struct lb_frontend *f;

	k->scope = LB_INTERNAL;
	f = bpf_map_lookup_elem(&lb_frontend_v1, k);
	if (f)
		return f;
	k->scope = LB_EXTERNAL;
	return bpf_map_lookup_elem(&lb_frontend_v1, k);
}

/* The zero address of the same family. */
static __always_inline void lb_any(struct addr *a)
{
	if (addr_is4(a))
		addr_from4(a, 0);
	else
		__builtin_memset(a, 0, sizeof(*a));
}

/* The frontend of a destination whose address has these flags, as somebody of the cluster sees it. k->addr is lost. */
static __always_inline struct lb_frontend *lb_find(struct lb_frontend_key *k, __u32 flags)
{
	struct lb_frontend *f = lb_frontend_at(k);

	if (f || !(flags & LB_A_NODE))
		return f;
	lb_any(&k->addr);
	return lb_frontend_at(k);
}

/* Spreads all bits over all bits (the finalizer of MurmurHash3). */
static __always_inline __u64 lb_mix(__u64 x)
{
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdULL;
	x ^= x >> 33;
	x *= 0xc4ceb9fe1a85ec53ULL;
	return x ^ x >> 33;
}

/* The slot of a new flow. The same hash leads to the same backend where there is a Maglev table, and if it has to. */
static __always_inline __u32 lb_index(__u32 slots, __u32 count, __u32 table, __u32 hash, bool same)
{
	struct lb_maglev_key k = {.slots = slots};
	struct lb_maglev *m;
	__u32 at;

	if (table) {
		at = hash % table;
		k.piece = at / LB_PIECE;
		m = bpf_map_lookup_elem(&lb_maglev_v1, &k);
		if (m)
			return m->index[at % LB_PIECE];
	}
	return (same ? hash : bpf_get_prandom_u32()) % count;
}

static __always_inline bool lb_member(__u32 slots, const struct lb_affinity *a)
{
	struct lb_member m = {.addr = a->addr, .slots = slots, .port = a->port};

	return bpf_map_lookup_elem(&lb_member_v1, &m);
}

/* The backend that a client had less than `idle` ns ago, if it still belongs to the set. */
static __always_inline bool lb_kept(__u32 slots, const struct lb_affinity_key *who, __u64 idle, struct lb_backend *to)
{
	struct lb_affinity *v = bpf_map_lookup_elem(&lb_affinity_v1, who);
	__u64 now = bpf_ktime_get_ns();
	struct lb_affinity a;

	if (!v)
		return false;
	a = *v; /* the row may become another's any time */
	if (now - a.used > idle || !lb_member(slots, &a))
		return false;
	if (now - a.used > NS_PER_SEC)
		v->used = now;
	to->addr = a.addr;
	to->port = a.port;
	return true;
}

/* Chooses a backend. `who` stays with its one for `idle` ns, 0: it does not stay. */
static __always_inline enum lb_answer lb_pick(const struct lb_frontend *f, const struct lb_affinity_key *who,
					      __u64 idle, __u32 hash, bool same, struct lb_backend *to)
{
	__u32 slots = f->slots, count = f->count, table = f->table;
	struct lb_slot_key k = {.slots = slots};
	struct lb_affinity a = {};
	struct lb_backend *b;

	if (idle && lb_kept(slots, who, idle, to))
		return LB_KEPT;
	if (!count)
		return LB_NOBODY;
	k.index = lb_index(slots, count, table, hash, same);
	b = bpf_map_lookup_elem(&lb_slot_v1, &k);
	if (!b)
		return LB_GONE;
	*to = *b;
	if (idle) {
		a.addr = to->addr;
		a.port = to->port;
		a.used = bpf_ktime_get_ns();
		bpf_map_update_elem(&lb_affinity_v1, who, &a, BPF_ANY);
	}
	return LB_FRESH;
}
