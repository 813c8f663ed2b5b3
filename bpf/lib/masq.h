/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Masquerade, the way out. */
#pragma once

#include "natport.h"

/* Makes the pair for forward key `k`, under the address in `out`. `want` is the port to try first; `out` gets the row. */
static __noinline int nat_create(struct __sk_buff *skb, struct nat_key *k, struct nat_value *out, __be16 want)
{
	struct nat_value back = {
		.addr = k->src,
		.port = k->sport,
		.ifindex = out->ifindex,
		.created = out->created,
	};
	struct nat_key r = {
		.src = k->dst,
		.dst = out->addr,
		.sport = k->dport,
		.proto = k->proto,
		.dir = NAT_REVERSE,
	};

	if (nat_claim(skb, &r, &back, want))
		return -1;
	out->port = r.dport;
	if (bpf_map_update_elem(&nat_v1, k, out, BPF_ANY)) {
		bpf_map_delete_elem(&nat_v1, &r);
		return -1;
	}
	return 0;
}

/* The packet leaves by p->via under p->xlated. */
static __noinline int nat_forward(struct __sk_buff *skb, struct pkt *p)
{
	struct nat_key k;
	struct nat_value *v, new = {.addr = p->xlated, .ifindex = p->via.ifindex};
	__be16 want;
	int err;

	if (!nat_speaks(&p->t))
		return fail(p, DROP_NAT_PROTOCOL, FILE_NAT, __LINE__);
	nat_key_from(&p->t, &k, NAT_FORWARD);
	want = k.sport;
	v = bpf_map_lookup_elem(&nat_v1, &k);
	if (v && addr_eq(&v->addr, &p->xlated)) {
		new.port = v->port;
		want = v->port; /* a pair torn in half is mended under its old port, if that is still free */
		if (nat_paired(&k, v))
			goto found;
	}
	new.created = bpf_ktime_get_ns();
	if (nat_create(skb, &k, &new, want))
		return fail(p, DROP_NAT_NO_MAPPING, FILE_NAT, __LINE__);
found:
	err = rewrite_port(skb, p, new.port, REWRITE_SRC);
	if (!err)
		err = rewrite_addr(skb, p, &p->xlated, REWRITE_SRC);
	return err;
}

/* An ICMP error of a masqueraded workload leaves: so does what it quotes, the packet that came to it. */
static __noinline int nat_forward_error(struct __sk_buff *skb, struct pkt *p)
{
	struct nat_key k;
	struct nat_value *v;
	int err;

	nat_key_from(&p->quote, &k, NAT_FORWARD);
	v = bpf_map_lookup_elem(&nat_v1, &k);
	if (!v || !addr_eq(&v->addr, &p->xlated) || !nat_paired(&k, v))
		return fail(p, DROP_NAT_NO_MAPPING, FILE_NAT, __LINE__);
	err = rewrite_quote(skb, p, &p->xlated, v->port, REWRITE_DST);
	if (!err)
		err = rewrite_addr(skb, p, &p->xlated, REWRITE_SRC);
	return err;
}
