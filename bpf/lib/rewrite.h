/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Changing addresses, ports and hop limits in place, checksums kept right in every state the kernel may hold them in. */
#pragma once

#include <linux/ip.h>
#include <linux/ipv6.h>

#include "parse.h"

enum rewrite_side {
	REWRITE_SRC = 0,
	REWRITE_DST = 1,
};

static __always_inline __u16 csum_fold(__s64 sum)
{
	__u32 s = sum;

	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	return ~s;
}

static __always_inline __u32 rewrite_addr_off(bool v6, enum rewrite_side side)
{
	if (v6)
		return side == REWRITE_SRC ? offsetof(struct ipv6hdr, saddr) : offsetof(struct ipv6hdr, daddr);
	return side == REWRITE_SRC ? offsetof(struct iphdr, saddr) : offsetof(struct iphdr, daddr);
}

/* From the L4 header to its checksum, 0 when it has none that we keep. */
static __always_inline __u32 rewrite_csum_off(__u8 proto)
{
	switch (proto) {
	case PROTO_TCP:
		return 16;
	case PROTO_UDP:
		return 6;
	case PROTO_ICMP:
	case PROTO_ICMPV6:
		return 2;
	}
	return 0;
}

static __always_inline __u32 rewrite_csum_flags(__u8 proto)
{
	return proto == PROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
}

/* The address of the packet itself. */
static __noinline int rewrite_addr(struct __sk_buff *skb, struct pkt *p, const struct addr *to, enum rewrite_side side)
{
	bool v6 = pkt_v6(p);
	struct addr *from = side == REWRITE_SRC ? &p->t.src : &p->t.dst;
	__u32 off = p->l3 + rewrite_addr_off(v6, side);
	/* A later fragment has no checksum; the first one's covers the addresses for all of them. */
	__u32 csum = p->flags & PKT_F_LATER ? 0 : rewrite_csum_off(p->t.proto);
	__u64 flags = BPF_F_PSEUDO_HDR | rewrite_csum_flags(p->t.proto);

	if (v6) {
		__s64 diff = bpf_csum_diff((__be32 *)from, sizeof(*from), (__be32 *)to, sizeof(*to), 0);

		if (csum && bpf_l4_csum_replace(skb, p->l4 + csum, 0, diff, flags))
			return fail(p, DROP_WRITE, FILE_REWRITE, __LINE__);
		/* A checksum over the whole packet (CHECKSUM_COMPLETE) does not change, since the two changes above
		 * and below cancel out; the pseudo-header flag has changed it, and this flag puts it right. Without a
		 * checksum above (a later fragment) nothing cancels out, and the flag is right as well. */
		if (bpf_skb_store_bytes(skb, off, to, sizeof(*to), BPF_F_RECOMPUTE_CSUM))
			return fail(p, DROP_WRITE, FILE_REWRITE, __LINE__);
	} else {
		__be32 old = addr_word(from), new = addr_word(to);

		if (p->t.proto == PROTO_ICMP)
			csum = 0; /* has no pseudo header */
		if (csum && bpf_l4_csum_replace(skb, p->l4 + csum, old, new, flags | sizeof(new)))
			return fail(p, DROP_WRITE, FILE_REWRITE, __LINE__);
		if (bpf_l3_csum_replace(skb, p->l3 + offsetof(struct iphdr, check), old, new, sizeof(new)) ||
		    bpf_skb_store_bytes(skb, off, &new, sizeof(new), 0))
			return fail(p, DROP_WRITE, FILE_REWRITE, __LINE__);
	}
	*from = *to;
	return 0;
}

/* The port of the packet itself, or the id of an ICMP echo. */
static __noinline int rewrite_port(struct __sk_buff *skb, struct pkt *p, __be16 to, enum rewrite_side side)
{
	bool icmp = proto_is_icmp(p->t.proto);
	__be16 *from = side == REWRITE_SRC || icmp ? &p->t.sport : &p->t.dport;
	__u32 off = icmp ? 4 : side == REWRITE_SRC ? 0 : 2, csum = rewrite_csum_off(p->t.proto);
	__be16 old = *from;

	*from = to;
	if (old == to || p->flags & PKT_F_LATER)
		return 0;
	if (bpf_l4_csum_replace(skb, p->l4 + csum, old, to, rewrite_csum_flags(p->t.proto) | sizeof(to)) ||
	    bpf_skb_store_bytes(skb, p->l4 + off, &to, sizeof(to), 0))
		return fail(p, DROP_WRITE, FILE_REWRITE, __LINE__);
	return 0;
}

/* Address and port of the packet that an ICMP error quotes. The quoted packet's own transport checksum is left as it
 * was: nobody verifies a checksum over bytes that are not there. The IPv4 header's stays right, which also means that
 * the outer ICMP checksum does not see the address change. `side` counts from the quoted packet itself. */
static __noinline int rewrite_quote(struct __sk_buff *skb, struct pkt *p, const struct addr *to, __be16 port,
				    enum rewrite_side side)
{
	bool v6 = pkt_v6(p), icmp = proto_is_icmp(p->quote.proto);
	/* p->quote is turned round. */
	struct addr *from = side == REWRITE_SRC ? &p->quote.dst : &p->quote.src;
	__be16 *old_port = side == REWRITE_SRC && !icmp ? &p->quote.dport : &p->quote.sport;
	__u32 csum = p->l4 + 2, off = p->quote_l3 + rewrite_addr_off(v6, side);
	__u32 port_off = p->quote_l4 + (icmp ? 4 : side == REWRITE_SRC ? 0 : 2);
	__be16 was = *old_port;
	int err = 0;

	if (v6) {
		__s64 diff = bpf_csum_diff((__be32 *)from, sizeof(*from), (__be32 *)to, sizeof(*to), 0);

		err |= bpf_l4_csum_replace(skb, csum, 0, diff, 0);
		err |= bpf_skb_store_bytes(skb, off, to, sizeof(*to), 0);
	} else {
		__be32 old = addr_word(from), new = addr_word(to);

		err |= bpf_l3_csum_replace(skb, p->quote_l3 + offsetof(struct iphdr, check), old, new, sizeof(new));
		err |= bpf_skb_store_bytes(skb, off, &new, sizeof(new), 0);
	}
	if (was != port) {
		err |= bpf_l4_csum_replace(skb, csum, was, port, sizeof(port));
		err |= bpf_skb_store_bytes(skb, port_off, &port, sizeof(port), 0);
	}
	*from = *to;
	*old_port = port;
	return err ? fail(p, DROP_WRITE, FILE_REWRITE, __LINE__) : 0;
}

/* One hop less. The caller has seen that more than one is left. */
static __always_inline int rewrite_hop(struct __sk_buff *skb, struct pkt *p)
{
	__u8 hop = p->hop - 1;

	if (pkt_v6(p)) {
		if (bpf_skb_store_bytes(skb, p->l3 + offsetof(struct ipv6hdr, hop_limit), &hop, sizeof(hop),
					BPF_F_RECOMPUTE_CSUM))
			return fail(p, DROP_WRITE, FILE_REWRITE, __LINE__);
	} else {
		/* The 16-bit word that TTL is the upper half of. */
		__be16 old = bpf_htons(p->hop << 8 | p->t.proto), new = bpf_htons(hop << 8 | p->t.proto);

		if (bpf_l3_csum_replace(skb, p->l3 + offsetof(struct iphdr, check), old, new, sizeof(new)) ||
		    bpf_skb_store_bytes(skb, p->l3 + offsetof(struct iphdr, ttl), &hop, sizeof(hop), 0))
			return fail(p, DROP_WRITE, FILE_REWRITE, __LINE__);
	}
	p->hop = hop;
	return 0;
}
