/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Direct server return by encapsulation, with native routing. The outer packet goes from the node that was asked to the backend, so
 * it takes the way that the network has for workloads.
 *
 * Geneve: what says for which service a packet is, is an option of the tunnel's header; due when an IP option would be. IPIP: the
 * packet inside is the client's own, to the service; which service is plain from it, and every packet goes so. */
#pragma once

#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include "cfg.h"
#include "device.h"
#include "nat.h"

enum {
	WRAP_HOPS = 64,
	GENEVE_CLASS = 0x014b,
	GENEVE_SERVICE = 0x81, /* critical */
	GENEVE_WORLD = 2, /* the client's identity */
	GENEVE_PORT_MIN = 0xc000,
};

struct geneve {
	__u8 opt_len; /* version 0, and length of the options in units of 4 bytes */
	__u8 flags;
	__be16 proto;
	__be32 vni; /* in the upper 24 bits */
	__be16 class;
	__u8 type;
	__u8 len; /* of the one option, in the same units, this header not counted */
} __attribute__((packed, aligned(2)));

enum {
	GENEVE_F_CRITICAL = 0x40,
};

struct geneve4 {
	struct udphdr udp;
	struct geneve geneve;
	__be32 addr;
	__be16 port;
	__u16 pad;
	struct ethhdr eth;
} __attribute__((packed, aligned(2)));

struct geneve6 {
	struct udphdr udp;
	struct geneve geneve;
	__u8 addr[16];
	__be16 port;
	__u16 pad;
	struct ethhdr eth;
} __attribute__((packed, aligned(2)));

struct wrap4 {
	struct iphdr ip;
	struct geneve4 in;
} __attribute__((packed, aligned(4)));

struct wrap6 {
	struct ipv6hdr ip;
	struct geneve6 in;
} __attribute__((packed, aligned(4)));

_Static_assert(sizeof(struct geneve4) == 42 && sizeof(struct geneve6) == 54, "an encapsulation of another size");

static __always_inline bool wrap_geneve(void)
{
	return cfg.flags & CFG_DSR_GENEVE;
}

static __always_inline bool wrap_ipip(void)
{
	return cfg.flags & CFG_DSR_IPIP;
}

/* Bytes in front of the packet inside. */
static __always_inline __u32 wrap_len(bool v6)
{
	__u32 ip = v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);

	if (wrap_ipip())
		return ip;
	return ip + (v6 ? sizeof(struct geneve6) : sizeof(struct geneve4));
}

static __always_inline void wrap_tunnel(struct udphdr *udp, struct geneve *g, __u32 hash, __u32 len, bool v6)
{
	udp->source = bpf_htons(GENEVE_PORT_MIN | (hash & 0x3fff));
	udp->dest = bpf_htons(cfg.tunnel_port);
	udp->len = bpf_htons(len);
	udp->check = 0; /* the inner checksums cover what matters (RFC 6935) */
	g->opt_len = (v6 ? 24 : 12) / 4;
	g->flags = GENEVE_F_CRITICAL;
	g->proto = bpf_htons(ETH_P_TEB);
	g->vni = bpf_htonl(GENEVE_WORLD << 8);
	g->class = bpf_htons(GENEVE_CLASS);
	g->type = GENEVE_SERVICE;
	g->len = (v6 ? 20 : 8) / 4;
}

static __always_inline __u64 wrap_room_flags(bool v6)
{
	__u64 flags = (v6 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV4) | BPF_F_ADJ_ROOM_FIXED_GSO;

	return wrap_ipip() ? flags : flags | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN);
}

/* `len` is that of the packet inside; `front` is the service. What the kernel has merged may be more than a header can say. */
static __always_inline int wrap_write4(struct __sk_buff *skb, struct pkt *p, const struct addr *from, __u32 len)
{
	__u32 room = wrap_len(false);
	struct wrap4 w = {};

	w.ip.version = 4;
	w.ip.ihl = 5;
	w.ip.tot_len = len + room > 65535 ? 0 : bpf_htons(len + room);
	w.ip.frag_off = bpf_htons(0x4000);
	w.ip.ttl = WRAP_HOPS;
	w.ip.protocol = wrap_ipip() ? PROTO_IPIP : PROTO_UDP;
	w.ip.saddr = addr_word(from);
	w.ip.daddr = addr_word(&p->t.dst);
	w.ip.check = csum_fold(bpf_csum_diff(NULL, 0, (__be32 *)&w.ip, sizeof(w.ip), 0));
	if (!wrap_ipip()) {
		wrap_tunnel(&w.in.udp, &w.in.geneve, bpf_get_hash_recalc(skb), len + room - sizeof(w.ip), false);
		w.in.addr = addr_word(&p->front);
		w.in.port = p->front_port;
		w.in.eth.h_proto = bpf_htons(ETH_P_IP);
	}
	if (bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_MAC, wrap_room_flags(false)))
		return -1;
	return bpf_skb_store_bytes(skb, p->l3, &w, room, BPF_F_RECOMPUTE_CSUM) ? -1 : 0;
}

static __always_inline int wrap_write6(struct __sk_buff *skb, struct pkt *p, const struct addr *from, __u32 len)
{
	__u32 room = wrap_len(true);
	struct wrap6 w = {};

	len += room - sizeof(w.ip);
	w.ip.version = 6;
	w.ip.payload_len = len > 65535 ? 0 : bpf_htons(len);
	w.ip.nexthdr = wrap_ipip() ? PROTO_IPV6 : PROTO_UDP;
	w.ip.hop_limit = WRAP_HOPS;
	addr_from6((struct addr *)&w.ip.saddr, from);
	addr_from6((struct addr *)&w.ip.daddr, &p->t.dst);
	if (!wrap_ipip()) {
		wrap_tunnel(&w.in.udp, &w.in.geneve, bpf_get_hash_recalc(skb), len, true);
		__builtin_memcpy(w.in.addr, p->front.b, sizeof(w.in.addr));
		w.in.port = p->front_port;
		w.in.eth.h_proto = bpf_htons(ETH_P_IPV6);
	}
	if (bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_MAC, wrap_room_flags(true)))
		return -1;
	return bpf_skb_store_bytes(skb, p->l3, &w, room, BPF_F_RECOMPUTE_CSUM) ? -1 : 0;
}

/* The packet inside is to be the client's own again; p->t stays what it goes by. */
static __always_inline int wrap_restore(struct __sk_buff *skb, struct pkt *p)
{
	struct addr backend = p->t.dst;
	__be16 port = p->t.dport;
	int err = nat_to(skb, p, &p->front, p->front_port);

	p->t.dst = backend;
	p->t.dport = port;
	return err;
}

/* Puts the packet into another one for the backend's node. It has been seen to fit. */
static __always_inline int wrap(struct __sk_buff *skb, struct pkt *p)
{
	__u32 len = p->l4 - p->l3 + p->l4_len;
	struct addr from;

	if (device_addr(p, &from) || (wrap_ipip() && wrap_restore(skb, p)))
		return -1;
	return pkt_v6(p) ? wrap_write6(skb, p, &from, len) : wrap_write4(skb, p, &from, len);
}
