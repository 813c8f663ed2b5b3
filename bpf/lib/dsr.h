/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Direct server return: the node that was asked sends a client's packet on under the client's own address, and says in the
 * packet which service it was for; the backend's node answers the client itself. A TCP connection says so once, datagrams each
 * time. IPv4: an option; IPv6: a destination option. Both of the numbers for experiments (RFC 4727), passed over by who does not
 * know them. Or by encapsulation: wrap.h. */
#pragma once

#include "ct.h"
#include "wrap.h"

enum {
	DSR_OPT4 = 0x9e,
	DSR_OPT6 = 0x1e,
	DSR_PADN = 1,
};

struct dsr4 {
	__u8 type;
	__u8 len;
	__be16 port;
	__be32 addr;
};

struct dsr6 {
	__u8 nexthdr;
	__u8 len; /* in units of 8 bytes, the first not counted */
	__u8 type;
	__u8 opt_len;
	__be16 port;
	__u8 addr[16];
	__u8 pad_type;
	__u8 pad_len;
};

_Static_assert(sizeof(struct dsr4) == 8 && sizeof(struct dsr6) == 24, "an option of another size");

/* Whether the packet has to say which service it is for. */
static __always_inline bool dsr_due(const struct pkt *p)
{
	return wrap_ipip() || (!(p->flags & (PKT_F_ERROR | PKT_F_LATER)) && (p->t.proto != PROTO_TCP || ct_opens(p)));
}

/* Bytes that it takes. */
static __always_inline __u32 dsr_len(const struct pkt *p)
{
	if (wrap_ipip() || wrap_geneve())
		return wrap_len(pkt_v6(p));
	return pkt_v6(p) ? sizeof(struct dsr6) : sizeof(struct dsr4);
}

static __always_inline int dsr_push4(struct __sk_buff *skb, struct pkt *p)
{
	struct dsr4 o = {.type = DSR_OPT4, .len = sizeof(o), .port = p->front_port, .addr = addr_word(&p->front)};
	__u32 l3 = p->l3;
	__be16 was[2], is[2]; /* version, length of the header, and service; length */
	__s64 sum;

	if (bpf_skb_load_bytes(skb, l3, was, sizeof(was)))
		return -1;
	is[0] = was[0] + bpf_htons(sizeof(o) / 4 << 8);
	is[1] = bpf_htons(bpf_ntohs(was[1]) + sizeof(o));
	if ((bpf_ntohs(was[0]) >> 8 & 15) + sizeof(o) / 4 > 15 ||
	    bpf_skb_adjust_room(skb, sizeof(o), BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_FIXED_GSO) ||
	    bpf_skb_store_bytes(skb, l3, is, sizeof(is), 0) ||
	    bpf_skb_store_bytes(skb, l3 + sizeof(struct iphdr), &o, sizeof(o), 0))
		return -1;
	sum = bpf_csum_diff((__be32 *)was, sizeof(was), (__be32 *)is, sizeof(is), 0);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&o, sizeof(o), sum);
	return bpf_l3_csum_replace(skb, l3 + offsetof(struct iphdr, check), 0, sum, 0) ? -1 : 0;
}

static __always_inline int dsr_push6(struct __sk_buff *skb, struct pkt *p)
{
	struct dsr6 o = {.len = 2, .type = DSR_OPT6, .opt_len = 18, .port = p->front_port, .pad_type = DSR_PADN};
	__u32 l3 = p->l3;
	__be16 len;
	__u8 next = PROTO_DSTOPTS;

	__builtin_memcpy(o.addr, p->front.b, sizeof(o.addr));
	if (bpf_skb_load_bytes(skb, l3 + offsetof(struct ipv6hdr, payload_len), &len, sizeof(len)) ||
	    bpf_skb_load_bytes(skb, l3 + offsetof(struct ipv6hdr, nexthdr), &o.nexthdr, sizeof(o.nexthdr)))
		return -1;
	len = bpf_htons(bpf_ntohs(len) + sizeof(o));
	if (bpf_skb_adjust_room(skb, sizeof(o), BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_FIXED_GSO) ||
	    bpf_skb_store_bytes(skb, l3 + offsetof(struct ipv6hdr, payload_len), &len, sizeof(len),
				BPF_F_RECOMPUTE_CSUM) ||
	    bpf_skb_store_bytes(skb, l3 + offsetof(struct ipv6hdr, nexthdr), &next, sizeof(next), BPF_F_RECOMPUTE_CSUM))
		return -1;
	return bpf_skb_store_bytes(skb, l3 + sizeof(struct ipv6hdr), &o, sizeof(o), BPF_F_RECOMPUTE_CSUM) ? -1 : 0;
}

static __always_inline int dsr_say(struct __sk_buff *skb, struct pkt *p)
{
	if (wrap_ipip() || wrap_geneve())
		return wrap(skb, p);
	return pkt_v6(p) ? dsr_push6(skb, p) : dsr_push4(skb, p);
}

/* Says for which service the packet is: where p->room says so, which has been seen to fit. Not static: the verifier then looks at it
 * once, and not once for each state of a packet that comes here. */
__noinline int dsr_push(struct __sk_buff *skb)
{
	struct pkt *p = pkt_this();

	if (!p)
		return -DROP_INVALID;
	if (dsr_say(skb, p))
		return fail(p, DROP_WRITE, FILE_DSR, __LINE__);
	p->l4 += p->room;
	return 0;
}
