/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Later fragments have no ports: they take those of their first one, and so share its verdict. To be asked only once
 * the source address is known to be the sender's own, lest one workload spoil the ports of another. */
#pragma once

#include "../maps/frag.h"
#include "parse.h"

static __always_inline bool frag_is(const struct pkt *p)
{
	return p->flags & (PKT_F_FIRST | PKT_F_LATER);
}

static __always_inline void frag_key_from(const struct pkt *p, struct frag_key *k)
{
	*k = (struct frag_key){
		.src = p->t.src,
		.dst = p->t.dst,
		.id = p->frag_id,
		.proto = p->t.proto,
	};
}

/* Returns 0, or a negative drop reason. */
static __noinline int frag_follow(struct pkt *p)
{
	struct frag_key k;
	struct frag_value *found, v;

	frag_key_from(p, &k);
	if (p->flags & PKT_F_FIRST) {
		/* Errors are short; in pieces they are an attack. */
		if (p->flags & PKT_F_ERROR)
			return fail(p, DROP_FRAGMENT, FILE_FRAG, __LINE__);
		v.sport = p->t.sport;
		v.dport = proto_is_icmp(p->t.proto) ? bpf_htons(p->t.type << 8 | p->t.code) : p->t.dport;
		if (bpf_map_update_elem(&frag_v1, &k, &v, BPF_ANY))
			return fail(p, DROP_FRAGMENT, FILE_FRAG, __LINE__);
		return 0;
	}
	found = bpf_map_lookup_elem(&frag_v1, &k);
	if (!found)
		return fail(p, DROP_FIRST_FRAGMENT, FILE_FRAG, __LINE__);
	p->flags |= PKT_F_L4;
	p->t.sport = found->sport;
	if (proto_is_icmp(p->t.proto)) {
		p->t.type = bpf_ntohs(found->dport) >> 8;
		p->t.code = bpf_ntohs(found->dport);
	} else {
		p->t.dport = found->dport;
	}
	return 0;
}
