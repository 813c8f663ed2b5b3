/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* ARP of workloads: the host side of the device pair is every other machine to them. */
#pragma once

#include "deliver.h"

enum {
	ARP_REQUEST = 1,
	ARP_REPLY = 2,
};

struct arp {
	struct ethhdr eth;
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_len;
	__u8 protocol_len;
	__be16 op;
	__u8 sender_mac[ETH_ALEN];
	__be32 sender;
	__u8 target_mac[ETH_ALEN];
	__be32 target;
} __attribute__((packed));

static __always_inline bool mac_eq(const __u8 *a, const __u8 *b)
{
	return !__builtin_memcmp(a, b, ETH_ALEN);
}

static __always_inline int arp_reply(struct __sk_buff *skb, struct pkt *p, struct arp *a, const struct endpoint *ep)
{
	__be32 target = a->target;

	__builtin_memcpy(a->eth.h_dest, ep->mac, ETH_ALEN);
	__builtin_memcpy(a->eth.h_source, ep->host_mac, ETH_ALEN);
	a->op = bpf_htons(ARP_REPLY);
	__builtin_memcpy(a->target_mac, ep->mac, ETH_ALEN);
	a->target = a->sender;
	__builtin_memcpy(a->sender_mac, ep->host_mac, ETH_ALEN);
	a->sender = target;
	if (bpf_skb_store_bytes(skb, 0, a, sizeof(*a), 0))
		return fail(p, DROP_WRITE, FILE_NEIGH, __LINE__);
	return bpf_redirect(skb->ifindex, 0);
}

/* Returns the program's verdict, or a negative drop reason. */
static __noinline int arp_from_pod(struct __sk_buff *skb, struct pkt *p)
{
	struct endpoint *ep;
	struct arp a;

	if (skb->vlan_present || !(cfg.flags & CFG_IPV4) || bpf_skb_load_bytes(skb, 0, &a, sizeof(a)))
		return fail(p, DROP_INVALID, FILE_NEIGH, __LINE__);
	addr_from4(&p->t.src, a.sender);
	addr_from4(&p->t.dst, a.target);
	if (a.hardware != bpf_htons(1) || a.protocol != bpf_htons(ETH_P_IP) || a.hardware_len != ETH_ALEN ||
	    a.protocol_len != 4)
		return fail(p, DROP_INVALID, FILE_NEIGH, __LINE__);
	/* A probe for an address about to be taken (RFC 5227), or its announcement: silence means it is free. */
	if (!a.sender || a.sender == a.target)
		return drop_chatter(skb, p);
	ep = endpoint_find(&p->t.src);
	if (!ep || ep->ifindex != skb->ifindex)
		return fail(p, DROP_SOURCE_IP, FILE_NEIGH, __LINE__);
	if (!mac_eq(a.sender_mac, ep->mac) || !mac_eq(a.eth.h_source, ep->mac))
		return fail(p, DROP_SOURCE_MAC, FILE_NEIGH, __LINE__);
	who_local(&p->from, ep);
	if (a.op == bpf_htons(ARP_REPLY)) /* to the node, which asked for the workload's own address */
		return TC_ACT_OK;
	if (a.op != bpf_htons(ARP_REQUEST))
		return fail(p, DROP_INVALID, FILE_NEIGH, __LINE__);
	return arp_reply(skb, p, &a, ep);
}
