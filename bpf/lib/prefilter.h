/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Denied sources: what was sent from one ends here. Everything else passes, what is not understood too: the programs behind judge
 * it. */
#pragma once

#include <linux/ip.h>
#include <linux/ipv6.h>

#include "../maps/prefilter.h"
#include "addr.h"
#include "bpf.h"

enum {
	TAGS_MAX = 2, /* 802.1Q within 802.1ad */
};

struct vlan_tag {
	__be16 tci;
	__be16 proto; /* of what follows */
};

static __always_inline bool prefilter_denies(const struct addr *src, enum family family)
{
	__u32 zero = 0, prefixes = family == FAMILY_IPV4 ? PREFILTER_F_PREFIX4 : PREFILTER_F_PREFIX6;
	struct prefilter_state *state = bpf_map_lookup_elem(&prefilter_state_v1, &zero);
	void *exact = bpf_map_lookup_elem(&prefilter_exact_v1, &zero);
	struct prefilter_key k = {.prefixlen = 32 + 128, .family = family};

	if (exact && bpf_map_lookup_elem(exact, src))
		return true;
	if (!state || !(state->flags & prefixes))
		return false;
	k.addr = *src;
	return bpf_map_lookup_elem(&prefilter_v1, &k);
}

static __always_inline int prefilter_drop(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct metric *m = bpf_map_lookup_elem(&prefilter_count_v1, &zero);

	if (m) {
		m->count++;
		m->bytes += ctx->data_end - ctx->data;
	}
	return XDP_DROP;
}

/* An IP packet that begins at `l3`. */
static __always_inline int prefilter_ip(struct xdp_md *ctx, void *l3, __be16 proto)
{
	void *end = (void *)(long)ctx->data_end;
	struct ipv6hdr *ip6 = l3;
	struct iphdr *ip4 = l3;
	enum family family;
	struct addr src;

	if (proto == bpf_htons(ETH_P_IP) && (void *)(ip4 + 1) <= end) {
		family = FAMILY_IPV4;
		addr_from4(&src, ip4->saddr);
	} else if (proto == bpf_htons(ETH_P_IPV6) && (void *)(ip6 + 1) <= end) {
		family = FAMILY_IPV6;
		addr_from6(&src, &ip6->saddr);
		if (addr_is4(&src)) /* nobody's on the wire, here it would be taken for IPv4 */
			return XDP_PASS;
	} else {
		return XDP_PASS;
	}
	return prefilter_denies(&src, family) ? prefilter_drop(ctx) : XDP_PASS;
}

/* A frame with a link layer. */
static __always_inline int prefilter_frame(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;
	void *next = eth + 1;
	__be16 proto;

	if (next > end)
		return XDP_PASS;
	proto = eth->h_proto;
	for (int i = 0; i < TAGS_MAX; i++) {
		struct vlan_tag *tag = next;

		if (proto != bpf_htons(ETH_P_8021Q) && proto != bpf_htons(ETH_P_8021AD))
			break;
		next = tag + 1;
		if (next > end)
			return XDP_PASS;
		proto = tag->proto;
	}
	return prefilter_ip(ctx, next, proto);
}
