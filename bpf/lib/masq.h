/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Masquerade, the way out. */
#pragma once

#include "natport.h"

/* The packet leaves under p->xlated: fills p->xlated_port. */
static __noinline int nat_forward(struct __sk_buff *skb, struct pkt *p)
{
	struct nat_value *v, was, *new = &p->nat_to;
	struct nat_key *k = &p->nat;

	if (!nat_speaks(&p->t))
		return fail(p, DROP_NAT_PROTOCOL, FILE_NAT, __LINE__);
	nat_key_from(&p->t, k, NAT_FORWARD);
	new->src = p->xlated;
	new->dst = k->dst;
	new->sport = k->sport;
	new->dport = k->dport;
	new->slots = 0;
	v = bpf_map_lookup_elem(&nat_v2, k);
	if (v) {
		was = *v; /* the row may become another's any time */
		if (addr_eq(&was.src, &p->xlated)) {
			/* A pair torn in half is mended under its old port, if that is still free. */
			new->sport = was.sport;
			if (nat_paired(k, &was))
				goto found;
		}
	}
	if (nat_lease(skb, k, new))
		return fail(p, DROP_NAT_NO_MAPPING, FILE_NAT, __LINE__);
found:
	p->xlated_port = new->sport;
	return 0;
}

/* An ICMP error of a masqueraded workload leaves: so does what it quotes, the packet that came to it. */
static __noinline int nat_forward_error(struct pkt *p)
{
	struct nat_key k;
	struct nat_value v;

	nat_key_from(&p->quote, &k, NAT_FORWARD);
	if (!nat_find(&k, &v) || !addr_eq(&v.src, &p->xlated))
		return fail(p, DROP_NAT_NO_MAPPING, FILE_NAT, __LINE__);
	p->xlated_port = v.sport;
	return 0;
}
