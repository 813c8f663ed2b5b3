/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* IPv6 extension headers (RFC 8200): a bounded walk to the upper-layer header. */
#pragma once

#include "pkt.h"

enum {
	EXT_MAX = 6,            /* headers in one chain; nothing real has more */
	EXT_FRAG_MORE = 0x0001, /* of frag_off */
	EXT_FRAG_OFFSET = 0xfff8,
};

/* Input: off, nexthdr, end. Output: off and nexthdr of the upper layer, and the fragment header's content. */
struct ext {
	__u32 off;
	__u32 end; /* first offset behind the IP packet */
	__u32 frag_id;
	__u16 frag_off; /* host byte order: offset in bytes | EXT_FRAG_MORE */
	__u8 nexthdr;
	bool fragment;
};

struct ext_hdr {
	__u8 nexthdr;
	__u8 len;
	__be16 data; /* routing: type, segments left; fragment: offset and flags */
	__be32 id;   /* fragment */
};

static __always_inline bool ext_is(__u8 nexthdr)
{
	return nexthdr == PROTO_HOPOPTS || nexthdr == PROTO_ROUTING || nexthdr == PROTO_FRAGMENT ||
	       nexthdr == PROTO_AH || nexthdr == PROTO_DSTOPTS;
}

/* One header. Returns 0, or -1 when the packet is to be dropped. */
static __always_inline int ext_step(struct __sk_buff *skb, struct ext *e, bool first)
{
	struct ext_hdr h;

	/* Every extension header has 8 bytes at least. */
	if (e->off + sizeof(h) > e->end || bpf_skb_load_bytes(skb, e->off, &h, sizeof(h)))
		return -1;
	switch (e->nexthdr) {
	case PROTO_HOPOPTS:
		if (!first) /* RFC 8200 4.1: only right behind the IPv6 header */
			return -1;
		e->off += (h.len + 1) * 8;
		break;
	case PROTO_ROUTING:
		/* Segments left: the destination judged would not be the final one. */
		if (bpf_ntohs(h.data) & 0xff)
			return -1;
		e->off += (h.len + 1) * 8;
		break;
	case PROTO_DSTOPTS:
		e->off += (h.len + 1) * 8;
		break;
	case PROTO_AH:
		e->off += (h.len + 2) * 4;
		break;
	case PROTO_FRAGMENT:
		/* A later fragment does not repeat what follows, so nothing but the upper layer may (and nothing real does). */
		if (e->fragment || ext_is(h.nexthdr))
			return -1;
		e->fragment = true;
		e->frag_off = bpf_ntohs(h.data);
		e->frag_id = h.id;
		e->off += sizeof(h);
		break;
	}
	e->nexthdr = h.nexthdr;
	return e->off > e->end ? -1 : 0;
}

static __noinline int ext_walk(struct __sk_buff *skb, struct ext *e)
{
	for (int i = 0; i < EXT_MAX; i++) {
		if (!ext_is(e->nexthdr))
			return 0;
		if (ext_step(skb, e, i == 0))
			return -1;
	}
	return ext_is(e->nexthdr) ? -1 : 0;
}
