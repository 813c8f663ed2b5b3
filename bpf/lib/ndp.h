/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Neighbour discovery of workloads (RFC 4861): the host side of the device pair is every other machine to them. */
#pragma once

#include <linux/ipv6.h>

#include "arp.h"
#include "icmp.h"

enum ndp_type {
	NDP_ROUTER_SOLICITATION = 133,
	NDP_ROUTER_ADVERTISEMENT = 134,
	NDP_SOLICITATION = 135,
	NDP_ADVERTISEMENT = 136,
	NDP_REDIRECT = 137,
};

enum mld_type {
	MLD_QUERY = 130,
	MLD_REPORT = 131,
	MLD_DONE = 132,
	MLD_REPORT2 = 143,
};

enum {
	NDP_HOPS = 255,
	NDP_OPT_TARGET_MAC = 2,
};

/* From the IPv6 header on. */
struct ndp {
	struct ipv6hdr ip;
	struct icmp_hdr icmp;
	struct in6_addr target;
	__u8 opt_type;
	__u8 opt_len; /* in 8 bytes */
	__u8 opt_mac[ETH_ALEN];
};

/* Without the options. */
enum {
	NDP_SHORT = offsetof(struct ndp, opt_type),
	NDP_PAYLOAD = sizeof(struct ndp) - sizeof(struct ipv6hdr),
};

static __always_inline bool ndp_is(const struct pkt *p)
{
	return p->t.proto == PROTO_ICMPV6 && p->flags & PKT_F_L4 && p->t.type >= NDP_ROUTER_SOLICITATION &&
	       p->t.type <= NDP_REDIRECT;
}

static __always_inline bool mld_is(const struct pkt *p)
{
	return p->t.proto == PROTO_ICMPV6 && p->flags & PKT_F_L4 &&
	       ((p->t.type >= MLD_QUERY && p->t.type <= MLD_DONE) || p->t.type == MLD_REPORT2);
}

/* Turns the solicitation into the advertisement that answers it: "`target` is at `mac`". */
static __always_inline int ndp_reply(struct __sk_buff *skb, struct pkt *p, struct ethhdr *eth, struct ndp *n,
				     const __u8 *mac)
{
	__be32 tail[2] = {bpf_htonl(NDP_PAYLOAD), bpf_htonl(PROTO_ICMPV6)};
	__s64 sum;

	__builtin_memcpy(eth->h_dest, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, mac, ETH_ALEN);
	n->ip.daddr = n->ip.saddr;
	n->ip.saddr = n->target;
	n->ip.payload_len = bpf_htons(NDP_PAYLOAD);
	n->icmp.type = NDP_ADVERTISEMENT;
	n->icmp.code = 0;
	n->icmp.csum = 0;
	n->icmp.data = bpf_htonl(0x60000000); /* solicited, override */
	n->opt_type = NDP_OPT_TARGET_MAC;
	n->opt_len = 1;
	__builtin_memcpy(n->opt_mac, mac, ETH_ALEN);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&n->ip.saddr, sizeof(*n) - offsetof(struct ipv6hdr, saddr), 0);
	n->icmp.csum = csum_fold(bpf_csum_diff(NULL, 0, tail, sizeof(tail), sum));
	if (bpf_skb_change_tail(skb, L3_OFF + sizeof(*n), 0) || bpf_skb_store_bytes(skb, 0, eth, sizeof(*eth), 0) ||
	    bpf_skb_store_bytes(skb, L3_OFF, n, sizeof(*n), 0))
		return fail(p, DROP_WRITE, FILE_NEIGH, __LINE__);
	return bpf_redirect(skb->ifindex, 0);
}

/* Whether the stack keeps it to itself: what is not its own, nor of this link, it forwards. */
static __always_inline bool ndp_to_node(const struct addr *dst)
{
	struct ipcache_value *v;

	if (addr_link_local(dst) || (dst->b[0] == 0xff && (dst->b[1] & 0x0f) == 2)) /* whatever the multicast flags */
		return true;
	v = ipcache_find(dst);
	return v && v->identity == IDENTITY_HOST;
}

/* A workload's own neighbour advertisement, sent because the node asked: for its own addresses only, and to the node
 * only, since nobody judges it. */
static __always_inline int ndp_advertised(struct __sk_buff *skb, struct pkt *p, const struct ethhdr *eth,
					  const struct ndp *n)
{
	struct endpoint *ep;
	struct addr target;

	if (!ndp_to_node(&p->t.dst))
		return fail(p, DROP_ICMPV6_FORBIDDEN, FILE_NEIGH, __LINE__);
	ep = endpoint_find(&p->t.src);
	if (!(ep ? ep->ifindex == skb->ifindex : addr_link_local(&p->t.src)))
		return fail(p, DROP_SOURCE_IP, FILE_NEIGH, __LINE__);
	addr_from6(&target, &n->target);
	ep = endpoint_find(&target);
	if (!ep || ep->ifindex != skb->ifindex)
		return fail(p, DROP_ICMPV6_FORBIDDEN, FILE_NEIGH, __LINE__);
	if (!mac_eq(eth->h_source, ep->mac))
		return fail(p, DROP_SOURCE_MAC, FILE_NEIGH, __LINE__);
	return TC_ACT_OK;
}

/* Returns the program's verdict, or a negative drop reason. The packet is one of NDP's (ndp_is). */
static __noinline int ndp_from_pod(struct __sk_buff *skb, struct pkt *p)
{
	__u8 mac[ETH_ALEN];
	struct endpoint *ep;
	struct ethhdr eth;
	struct addr target;
	struct ndp n;

	if (p->t.type == NDP_ROUTER_SOLICITATION)
		return drop_chatter(skb, p);
	if (p->t.type != NDP_SOLICITATION && p->t.type != NDP_ADVERTISEMENT)
		return fail(p, DROP_ICMPV6_FORBIDDEN, FILE_NEIGH, __LINE__);
	/* Bytes behind the IP packet are no part of it. */
	if (p->hop != NDP_HOPS || !p->plain_header || p->t.code || p->l4_len < NDP_SHORT - sizeof(struct ipv6hdr) ||
	    bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)) || bpf_skb_load_bytes(skb, L3_OFF, &n, NDP_SHORT))
		return fail(p, DROP_INVALID, FILE_NEIGH, __LINE__);
	if (p->t.type == NDP_ADVERTISEMENT)
		return ndp_advertised(skb, p, &eth, &n);
	/* Duplicate address detection: silence means the address is free. */
	if (addr_zero(&p->t.src))
		return drop_chatter(skb, p);
	addr_from6(&target, &n.target);
	ep = endpoint_find(&target);
	if (ep && ep->ifindex == skb->ifindex)
		return drop_chatter(skb, p);
	ep = endpoint_find(&p->t.src);
	if (ep) {
		if (ep->ifindex != skb->ifindex)
			return fail(p, DROP_SOURCE_IP, FILE_NEIGH, __LINE__);
		if (!mac_eq(eth.h_source, ep->mac))
			return fail(p, DROP_SOURCE_MAC, FILE_NEIGH, __LINE__);
		return ndp_reply(skb, p, &eth, &n, ep->host_mac);
	}
	if (!addr_link_local(&p->t.src))
		return fail(p, DROP_SOURCE_IP, FILE_NEIGH, __LINE__);
	/* From the workload's link-local address, which no row names: a probe says in its frame which MAC it means, any
	 * other is answered once it is asked from a global address. */
	if (eth.h_dest[0] & 1)
		return drop_chatter(skb, p);
	__builtin_memcpy(mac, eth.h_dest, ETH_ALEN);
	return ndp_reply(skb, p, &eth, &n, mac);
}
