/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* The packet that an ICMP error quotes. */
#pragma once

#include <linux/ip.h>
#include <linux/ipv6.h>

#include "ext.h"
#include "parse.h"

enum {
	QUOTE_OFF = 8, /* from the ICMP header to the quoted packet */
};

/* An echo request answers to an echo reply and the other way round; other types to themselves. */
static __always_inline __u8 icmp_opposite(__u8 proto, __u8 type)
{
	if (proto == PROTO_ICMPV6)
		return type == 128 ? 129 : type == 129 ? 128 : type;
	return type == 8 ? 0 : type == 0 ? 8 : type;
}

static __always_inline int quote_ip4(struct __sk_buff *skb, struct pkt *p)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, p->quote_l3, &ip, sizeof(ip)))
		return -1;
	/* A quoted later fragment has no ports to find its flow by. */
	if (ip.version != 4 || ip.ihl < 5 || ip.frag_off & bpf_htons(0x1fff))
		return -1;
	addr_from4(&p->quote.dst, ip.saddr);
	addr_from4(&p->quote.src, ip.daddr);
	p->quote.proto = ip.protocol;
	p->quote_l4 = p->quote_l3 + ip.ihl * 4;
	return 0;
}

static __always_inline int quote_ip6(struct __sk_buff *skb, struct pkt *p)
{
	struct ipv6hdr ip;
	struct ext e = {};

	if (bpf_skb_load_bytes(skb, p->quote_l3, &ip, sizeof(ip)))
		return -1;
	if (ip.version != 6)
		return -1;
	addr_from6(&p->quote.dst, &ip.saddr);
	addr_from6(&p->quote.src, &ip.daddr);
	if (addr_is4(&p->quote.src) || addr_is4(&p->quote.dst))
		return -1;
	e.off = p->quote_l3 + sizeof(ip);
	e.end = p->l4 + p->l4_len;
	e.nexthdr = ip.nexthdr;
	if (ext_walk(skb, &e) || e.frag_off & EXT_FRAG_OFFSET)
		return -1;
	p->quote.proto = e.nexthdr;
	p->quote_l4 = e.off;
	return 0;
}

/* Fills p->quote, turned round: it then travels as the error does. Returns 0 or a negative drop reason. */
static __noinline int quote_parse(struct __sk_buff *skb, struct pkt *p)
{
	union l4_hdr h;
	__u8 proto;

	/* Redirects and source quench change how the receiver sends; no workload or peer has a say in that. */
	if (!pkt_v6(p) && (p->t.type == 4 || p->t.type == 5))
		return fail(p, DROP_INVALID, FILE_QUOTE, __LINE__);
	p->quote_l3 = p->l4 + QUOTE_OFF;
	if (pkt_v6(p) ? quote_ip6(skb, p) : quote_ip4(skb, p))
		return fail(p, DROP_TRUNCATED, FILE_QUOTE, __LINE__);
	/* RFC 792 promises 8 bytes of the transport header. */
	if (p->quote_l4 + 8 > p->l4 + p->l4_len || bpf_skb_load_bytes(skb, p->quote_l4, &h, 8))
		return fail(p, DROP_TRUNCATED, FILE_QUOTE, __LINE__);
	proto = p->quote.proto;
	if (proto == (pkt_v6(p) ? PROTO_ICMP : PROTO_ICMPV6))
		return fail(p, DROP_INVALID, FILE_QUOTE, __LINE__);
	if (proto_has_ports(proto)) {
		p->quote.sport = h.dport;
		p->quote.dport = h.sport;
	} else if (proto_is_icmp(proto)) {
		/* No errors about errors (RFC 1122 3.2.2, RFC 4443 2.4). */
		if (!icmp_echo_request(proto, h.type))
			return fail(p, DROP_INVALID, FILE_QUOTE, __LINE__);
		p->quote.type = icmp_opposite(proto, h.type);
		p->quote.sport = h.id;
	}
	/* An error goes to whoever sent the packet it is about. */
	if (!addr_eq(&p->quote.dst, &p->t.dst))
		return fail(p, DROP_INVALID, FILE_QUOTE, __LINE__);
	return 0;
}
