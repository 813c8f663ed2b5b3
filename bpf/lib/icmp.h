/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Answers to a workload, or a client of a service, whose packet cannot go on: too big for the path, out of hops, nobody there. The packet is turned into the
 * ICMP error about itself and sent back where it came from. */
#pragma once

#include <linux/ip.h>
#include <linux/ipv6.h>

#include "cfg.h"
#include "deliver.h"

/* Of both versions. (linux/icmp.h wants a C library.) */
struct icmp_hdr {
	__u8 type;
	__u8 code;
	__be16 csum;
	__be32 data;
};

/* What is quoted: the IP header, which has neither options nor extensions, and the transport header as far as icmp_quoted
 * says. Zeros behind it do not change a checksum. */
struct icmp_answer4 {
	struct iphdr ip;
	struct icmp_hdr icmp;
	struct iphdr quote;
	__u8 l4[20];
};

struct icmp_answer6 {
	struct ipv6hdr ip;
	struct icmp_hdr icmp;
	struct ipv6hdr quote;
	__u8 l4[20];
};

/* Bytes quoted of the transport header: 8 (RFC 792), or up to its checksum. The kernel cuts no packet off in front of a
 * checksum that it has left to a device. */
static __always_inline __u32 icmp_quoted(__u8 proto)
{
	switch (proto) {
	case PROTO_TCP:
		return 20;
	case PROTO_SCTP:
		return 12;
	}
	return 8;
}

/* Who tells: to a workload its gateway; to who is outside, and may not reach that, the service they spoke to. */
static __always_inline void icmp_speaker(const struct pkt *p, struct addr *who)
{
	if (!p->from.set && !addr_zero(&p->front))
		*who = p->front;
	else
		router(who, pkt_v6(p));
}

/* Room for the answer's headers, in front of what is quoted. Returns 0, or -1. */
static __always_inline int icmp_make_room(struct __sk_buff *skb, __u32 quoted, __u32 headers)
{
	if (bpf_skb_change_tail(skb, L3_OFF + quoted, 0))
		return -1;
	return bpf_skb_adjust_room(skb, headers, BPF_ADJ_ROOM_MAC, 0) ? -1 : 0;
}

static __always_inline int icmp_answer4(struct __sk_buff *skb, struct pkt *p)
{
	struct icmp_answer4 a = {};
	__u32 l4 = icmp_quoted(p->t.proto), len = offsetof(struct icmp_answer4, l4) + l4;
	struct addr router;

	if (icmp_make_room(skb, sizeof(a.quote) + l4, sizeof(a.ip) + sizeof(a.icmp)) ||
	    bpf_skb_load_bytes(skb, L3_OFF + offsetof(struct icmp_answer4, quote), &a.quote, sizeof(a.quote) + l4))
		return -1;
	icmp_speaker(p, &router);
	a.ip.version = 4;
	a.ip.ihl = 5;
	a.ip.tot_len = bpf_htons(len);
	a.ip.ttl = 64;
	a.ip.protocol = PROTO_ICMP;
	a.ip.saddr = addr_word(&router);
	a.ip.daddr = addr_word(&p->t.src);
	a.ip.check = csum_fold(bpf_csum_diff(NULL, 0, (__be32 *)&a.ip, sizeof(a.ip), 0));
	if (p->answer == ANSWER_TOO_BIG) {
		a.icmp.type = 3;
		a.icmp.code = 4;
		a.icmp.data = bpf_htonl(p->answer_mtu);
	} else if (p->answer == ANSWER_UNREACHABLE) {
		a.icmp.type = 3;
		a.icmp.code = 3;
	} else {
		a.icmp.type = 11;
	}
	a.icmp.csum = csum_fold(bpf_csum_diff(NULL, 0, (__be32 *)&a.icmp, sizeof(a) - sizeof(a.ip), 0));
	return bpf_skb_store_bytes(skb, L3_OFF, &a, len, 0) ? -1 : 0;
}

static __always_inline int icmp_answer6(struct __sk_buff *skb, struct pkt *p)
{
	struct icmp_answer6 a = {};
	__u32 l4 = icmp_quoted(p->t.proto), len = offsetof(struct icmp_answer6, l4) + l4;
	/* Pseudo header: addresses, length, next header. */
	__be32 tail[2] = {bpf_htonl(len - sizeof(a.ip)), bpf_htonl(PROTO_ICMPV6)};
	struct addr router;
	__s64 sum;

	if (icmp_make_room(skb, sizeof(a.quote) + l4, sizeof(a.ip) + sizeof(a.icmp)) ||
	    bpf_skb_load_bytes(skb, L3_OFF + offsetof(struct icmp_answer6, quote), &a.quote, sizeof(a.quote) + l4))
		return -1;
	icmp_speaker(p, &router);
	a.ip.version = 6;
	a.ip.payload_len = bpf_htons(len - sizeof(a.ip));
	a.ip.nexthdr = PROTO_ICMPV6;
	a.ip.hop_limit = 64;
	addr_from6((struct addr *)&a.ip.saddr, &router);
	addr_from6((struct addr *)&a.ip.daddr, &p->t.src);
	if (p->answer == ANSWER_TOO_BIG) {
		a.icmp.type = 2;
		a.icmp.data = bpf_htonl(p->answer_mtu);
	} else if (p->answer == ANSWER_UNREACHABLE) {
		a.icmp.type = 1;
		a.icmp.code = 4;
	} else {
		a.icmp.type = 3;
	}
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&a.ip.saddr, sizeof(a) - offsetof(struct ipv6hdr, saddr), 0);
	a.icmp.csum = csum_fold(bpf_csum_diff(NULL, 0, tail, sizeof(tail), sum));
	return bpf_skb_store_bytes(skb, L3_OFF, &a, len, 0) ? -1 : 0;
}

static __always_inline int icmp_swap_macs(struct __sk_buff *skb)
{
	struct ethhdr eth, back;

	if (bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)))
		return -1;
	__builtin_memcpy(back.h_dest, eth.h_source, ETH_ALEN);
	__builtin_memcpy(back.h_source, eth.h_dest, ETH_ALEN);
	back.h_proto = eth.h_proto;
	return bpf_skb_store_bytes(skb, 0, &back, sizeof(back), 0) ? -1 : 0;
}

/* Whether to answer at all (RFC 1122 3.2.2, RFC 4443 2.4): never about errors or later fragments. Packets with IP options or
 * extension headers get none either, since their flow could not be told from so short a quote. */
static __always_inline bool icmp_answerable(const struct pkt *p)
{
	return p->plain_header && p->l4_len >= icmp_quoted(p->t.proto) && !(p->flags & (PKT_F_ERROR | PKT_F_LATER));
}

/* The end of a packet from a workload that does not go on: reported, and where p->answer says so, answered. Its source is
 * the workload's own address still. Returns the program's verdict. */
static __noinline int refuse(struct __sk_buff *skb, struct pkt *p, int err)
{
	int verdict = drop(skb, p, err);

	if (p->answer == ANSWER_NONE || !p->l3 || !icmp_answerable(p))
		return verdict;
	/* The sender knows it as it was. */
	if (p->service && !(p->flags & PKT_F_REPLY) && nat_to(skb, p, &p->front, p->front_port))
		return verdict;
	if (p->own_port && rewrite_port(skb, p, p->own_port, REWRITE_SRC))
		return verdict;
	if (pkt_v6(p) ? icmp_answer6(skb, p) : icmp_answer4(skb, p))
		return verdict;
	if (icmp_swap_macs(skb))
		return verdict;
	skb->mark = (skb->mark & ~MARK_MASK) | MARK_DELIVER;
	return bpf_redirect(skb->ifindex, 0);
}
