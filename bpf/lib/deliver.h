/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* The last step on this node: into a workload, or up to the node's own stack. */
#pragma once

#include "drop.h"
#include "nat.h"
#include "who.h"

/* Marks, in the bits that the field uses for such (mask 0x0f00). Packets lose them where they leave the node's network
 * namespace, so a workload cannot set them. */
enum mark {
	MARK_MASK = 0x0f00,
	MARK_OVERLAY = 0x0400,  /* has its tunnel key */
	MARK_DELIVER = 0x0f00,  /* judged already: to_pod lets it through */
};

/* Whether a packet that the stack sends came from elsewhere. An own source address does not mean that it did not: the
 * kernel forwards IPv6 under any source, and IPv4 that it has masqueraded. */
static __always_inline bool forwarded(const struct __sk_buff *skb)
{
	return skb->ingress_ifindex;
}

static __always_inline void take_as_host(struct __sk_buff *skb)
{
	/* Addressed to a MAC that is not the device's: the stack would ignore it. */
	if (skb->pkt_type != PKT_TYPE_HOST)
		bpf_skb_change_type(skb, PKT_TYPE_HOST);
}

static __always_inline int rewrite_macs(struct __sk_buff *skb, struct pkt *p, const __u8 *dst, const __u8 *src)
{
	struct ethhdr *eth = (void *)(long)skb->data;

	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return fail(p, DROP_WRITE, FILE_DELIVER, __LINE__);
	__builtin_memcpy(eth->h_dest, dst, ETH_ALEN);
	__builtin_memcpy(eth->h_source, src, ETH_ALEN);
	return 0;
}

static __always_inline int deliver_local(struct __sk_buff *skb, struct pkt *p)
{
	int err = addr_zero(&p->xlated) ? 0 : nat_as(skb, p);

	if (!err)
		err = rewrite_macs(skb, p, p->dest.mac, p->dest.host_mac);
	if (err)
		return err;
	p->flags &= ~(PKT_F_INGRESS | PKT_F_EGRESS);
	p->flags |= PKT_F_INGRESS;
	trace(skb, p, TRACE_TO_ENDPOINT);
	take_as_host(skb);
	if (cfg.flags & CFG_REDIRECT_PEER)
		return bpf_redirect_peer(p->dest.ifindex, 0);
	skb->mark = (skb->mark & ~MARK_MASK) | MARK_DELIVER;
	return bpf_redirect(p->dest.ifindex, 0);
}

static __always_inline int deliver_stack(struct __sk_buff *skb, struct pkt *p)
{
	trace(skb, p, TRACE_TO_STACK);
	take_as_host(skb);
	return TC_ACT_OK;
}
