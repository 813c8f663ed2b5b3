/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* From bytes to struct pkt: IPv4, IPv6, and the transport header behind them. What is not understood is refused. */
#pragma once

#include <linux/ip.h>
#include <linux/ipv6.h>

#include "cfg.h"
#include "ext.h"
#include "opt.h"
#include "pkt.h"

/* The shortest header each protocol can have, which the first fragment must hold whole (RFC 1858, RFC 7112). */
static __always_inline __u32 l4_min(__u8 proto)
{
	switch (proto) {
	case PROTO_TCP:
		return 20;
	case PROTO_SCTP:
		return 12;
	case PROTO_UDP:
	case PROTO_ICMP:
	case PROTO_ICMPV6:
		return 8;
	}
	return 0;
}

/* ICMP types that quote the packet they are about. */
static __always_inline bool icmp_is_error(__u8 proto, __u8 type)
{
	if (proto == PROTO_ICMPV6)
		return type < 128;
	return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
}

/* Echo request, or 0 when the type is no echo. */
static __always_inline __u8 icmp_echo_request(__u8 proto, __u8 type)
{
	if (proto == PROTO_ICMPV6)
		return type == 128 || type == 129 ? 128 : 0;
	return type == 8 || type == 0 ? 8 : 0;
}

static __always_inline bool proto_is_icmp(__u8 proto)
{
	return proto == PROTO_ICMP || proto == PROTO_ICMPV6;
}

static __always_inline bool proto_has_ports(__u8 proto)
{
	return proto == PROTO_TCP || proto == PROTO_UDP || proto == PROTO_SCTP;
}

enum {
	L4_NEAR = 256, /* where a transport header mostly begins; the verifier wants a bound */
};

/* The first 16 bytes of any transport header. */
union l4_hdr {
	struct {
		__be16 sport;
		__be16 dport;
		__be16 len; /* UDP */
		__be16 csum;
		__be32 ack;
		__u8 offset;
		__u8 flags;
		__be16 window;
	};
	struct {
		__u8 type;
		__u8 code;
		__be16 icmp_csum;
		__be16 id;
	};
};

/* Reads the header, straight from the packet where the kernel has it in one piece, which it mostly has. */
static __always_inline int load_l4(struct __sk_buff *skb, const struct pkt *p, union l4_hdr *h)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 off = p->l4;

	if (off <= L4_NEAR && data + off + sizeof(*h) <= end) {
		*h = *(union l4_hdr *)(data + off);
		return 0;
	}
	return bpf_skb_load_bytes(skb, off, h, p->t.proto == PROTO_TCP ? 16 : 8);
}

static __always_inline int parse_l4(struct __sk_buff *skb, struct pkt *p)
{
	union l4_hdr h;
	__u8 proto = p->t.proto;
	__u32 min = l4_min(proto);

	if (proto == (pkt_v6(p) ? PROTO_ICMP : PROTO_ICMPV6))
		return fail(p, DROP_L4_PROTOCOL, FILE_PARSE, __LINE__);
	if (p->flags & PKT_F_LATER)
		/* Overlapping the header that was judged. */
		return p->frag_off < min ? fail(p, DROP_FRAGMENT, FILE_PARSE, __LINE__) : 0;
	if (!min)
		return 0;
	if (p->l4_len < min)
		return fail(p, DROP_TRUNCATED, FILE_PARSE, __LINE__);
	if (load_l4(skb, p, &h))
		return fail(p, DROP_TRUNCATED, FILE_PARSE, __LINE__);
	p->flags |= PKT_F_L4;
	if (proto_is_icmp(proto)) {
		p->t.type = h.type;
		p->t.code = h.code;
		if (icmp_echo_request(proto, h.type))
			p->t.sport = h.id;
		else if (icmp_is_error(proto, h.type))
			p->flags |= PKT_F_ERROR;
		return 0;
	}
	p->t.sport = h.sport;
	p->t.dport = h.dport;
	if (proto == PROTO_TCP) {
		__u32 len = (h.offset >> 4) * 4;

		if (len < min || (!(p->flags & PKT_F_FIRST) && len > p->l4_len))
			return fail(p, DROP_TRUNCATED, FILE_PARSE, __LINE__);
		p->tcp_flags = h.flags;
		p->l4_header = len;
	} else if (proto == PROTO_UDP) {
		__u32 len = bpf_ntohs(h.len);

		p->l4_header = min;
		if (len < min || (!(p->flags & PKT_F_FIRST) && len > p->l4_len))
			return fail(p, DROP_TRUNCATED, FILE_PARSE, __LINE__);
	}
	return 0;
}

/* Bytes of the IP packet: what its header says, or all there is when the kernel has merged more than a header can say. */
static __always_inline __u32 parse_len(struct __sk_buff *skb, __u32 l3, __u32 said)
{
	return !said && skb->gso_size ? skb->len - l3 : said;
}

static __always_inline int parse_fragment(struct pkt *p, __u32 offset, bool more)
{
	p->frag_off = offset;
	if (offset) {
		/* Past the largest datagram there can be. */
		if (offset + p->l4_len > 65535)
			return fail(p, DROP_INVALID, FILE_PARSE, __LINE__);
		p->flags |= PKT_F_LATER;
	} else if (more) {
		p->flags |= PKT_F_FIRST;
	}
	return 0;
}

static __always_inline int parse4(struct __sk_buff *skb, struct pkt *p, __u32 l3)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + l3;
	__u32 hlen, len, frag;

	if ((void *)(ip + 1) > end) {
		if (bpf_skb_pull_data(skb, l3 + sizeof(*ip)))
			return fail(p, DROP_INVALID, FILE_PARSE, __LINE__);
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		ip = data + l3;
		if ((void *)(ip + 1) > end)
			return fail(p, DROP_INVALID, FILE_PARSE, __LINE__);
	}
	addr_from4(&p->t.src, ip->saddr);
	addr_from4(&p->t.dst, ip->daddr);
	p->t.proto = ip->protocol;
	p->hop = ip->ttl;
	hlen = ip->ihl * 4;
	len = parse_len(skb, l3, bpf_ntohs(ip->tot_len));
	if (ip->version != 4 || hlen < sizeof(*ip) || len < hlen || len > skb->len - l3)
		return fail(p, DROP_INVALID, FILE_PARSE, __LINE__);
	p->plain_header = hlen == sizeof(*ip);
	p->l4 = l3 + hlen;
	p->l4_len = len - hlen;
	if (!p->plain_header && opt_walk(skb, l3 + sizeof(*ip), p->l4))
		return fail(p, DROP_INVALID, FILE_PARSE, __LINE__);
	frag = bpf_ntohs(ip->frag_off);
	p->dont_fragment = frag & 0x4000;
	p->frag_id = ip->id;
	if (frag & 0x3fff) {
		int err = parse_fragment(p, (frag & 0x1fff) * 8, frag & 0x2000);

		if (err)
			return err;
	}
	return parse_l4(skb, p);
}

/* The headers between IPv6 and the upper layer, when there are any. */
static __noinline int parse_ext(struct __sk_buff *skb, struct pkt *p)
{
	struct ext e = {
		.off = p->l4,
		.end = p->l4 + p->l4_len,
		.nexthdr = p->t.proto,
	};

	if (ext_walk(skb, &e))
		return fail(p, DROP_EXTENSION_HEADER, FILE_EXT, __LINE__);
	p->l4 = e.off;
	p->l4_len = e.end - e.off;
	p->t.proto = e.nexthdr;
	p->plain_header = false;
	p->frag_id = e.frag_id;
	return parse_fragment(p, e.frag_off & EXT_FRAG_OFFSET, e.frag_off & EXT_FRAG_MORE);
}

static __always_inline int parse6(struct __sk_buff *skb, struct pkt *p, __u32 l3)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = data + l3;
	__u32 len;

	p->flags |= PKT_F_V6;
	if ((void *)(ip + 1) > end) {
		if (bpf_skb_pull_data(skb, l3 + sizeof(*ip)))
			return fail(p, DROP_INVALID, FILE_PARSE, __LINE__);
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		ip = data + l3;
		if ((void *)(ip + 1) > end)
			return fail(p, DROP_INVALID, FILE_PARSE, __LINE__);
	}
	addr_from6(&p->t.src, &ip->saddr);
	addr_from6(&p->t.dst, &ip->daddr);
	p->t.proto = ip->nexthdr;
	p->hop = ip->hop_limit;
	len = parse_len(skb, l3, bpf_ntohs(ip->payload_len));
	if (!bpf_ntohs(ip->payload_len) && len)
		len -= sizeof(*ip);
	if (ip->version != 6 || len > skb->len - l3 - sizeof(*ip))
		return fail(p, DROP_INVALID, FILE_PARSE, __LINE__);
	/* On the wire a v4-mapped address is nobody's; here it would be taken for IPv4. */
	if (addr_is4(&p->t.src) || addr_is4(&p->t.dst))
		return fail(p, DROP_INVALID, FILE_PARSE, __LINE__);
	p->plain_header = true;
	p->dont_fragment = true;
	p->l4 = l3 + sizeof(*ip);
	p->l4_len = len;
	if (ext_is(p->t.proto)) {
		int err = parse_ext(skb, p);

		if (err)
			return err;
	}
	return parse_l4(skb, p);
}

/* Returns 0 or a negative drop reason. Addresses are filled in as soon as they are known, also on failure. The IP header
 * is at `l3`, a constant wherever the caller knows it. */
static __always_inline int parse_at(struct __sk_buff *skb, struct pkt *p, __u32 l3)
{
	if (skb->vlan_present)
		return fail(p, DROP_VLAN, FILE_PARSE, __LINE__);
	if (skb->protocol == bpf_htons(ETH_P_IP) && cfg.flags & CFG_IPV4)
		return parse4(skb, p, l3);
	if (skb->protocol == bpf_htons(ETH_P_IPV6) && cfg.flags & CFG_IPV6)
		return parse6(skb, p, l3);
	return fail(p, DROP_L3_PROTOCOL, FILE_PARSE, __LINE__);
}

static __always_inline int parse(struct __sk_buff *skb, struct pkt *p)
{
	return parse_at(skb, p, L3_OFF);
}
