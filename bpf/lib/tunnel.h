/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Keys of the tunnel device (collect-metadata mode), for an IPv4 or IPv6 underlay. */
#pragma once

#include "deliver.h"

enum {
	/* The kernel takes the sizes that the structure has had. This one, without the local address, is 5.10's. */
	TUNNEL_KEY_SIZE = offsetof(struct bpf_tunnel_key, local_ipv4),
};

/* Sends to the node at `peer`, saying who sends. Does not redirect. */
static __noinline int tunnel_set(struct __sk_buff *skb, struct pkt *p, const struct addr *peer, __u32 vni)
{
	struct bpf_tunnel_key key = {.tunnel_id = vni};
	__u64 flags;

	if (addr_is4(peer)) {
		key.remote_ipv4 = bpf_ntohl(addr_word(peer));
		flags = BPF_F_ZERO_CSUM_TX; /* the inner checksums cover what matters; over IPv6 one is required */
	} else {
		__builtin_memcpy(key.remote_ipv6, peer->b, sizeof(key.remote_ipv6));
		flags = BPF_F_TUNINFO_IPV6;
	}
	p->tunnel = *peer;
	p->vni = vni;
	if (bpf_skb_set_tunnel_key(skb, &key, TUNNEL_KEY_SIZE, flags))
		return fail(p, DROP_TUNNEL_KEY, FILE_TUNNEL, __LINE__);
	skb->mark = (skb->mark & ~MARK_MASK) | MARK_OVERLAY;
	return 0;
}

/* Who sent this, as the outer header says: fills p->tunnel and p->vni. */
static __always_inline int tunnel_get(struct __sk_buff *skb, struct pkt *p)
{
	struct bpf_tunnel_key key = {};

	if (!bpf_skb_get_tunnel_key(skb, &key, TUNNEL_KEY_SIZE, 0)) {
		addr_from4(&p->tunnel, bpf_htonl(key.remote_ipv4));
	} else {
		if (bpf_skb_get_tunnel_key(skb, &key, TUNNEL_KEY_SIZE, BPF_F_TUNINFO_IPV6))
			return fail(p, DROP_TUNNEL_KEY, FILE_TUNNEL, __LINE__);
		addr_from6(&p->tunnel, key.remote_ipv6);
	}
	p->vni = key.tunnel_id;
	return 0;
}
