/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* IPv4 options (RFC 791): passed on, but for source routes. */
#pragma once

#include "pkt.h"

enum {
	OPT_MAX = 16, /* in one header; nothing real has more */
	OPT_END = 0,
	OPT_NOP = 1,
	OPT_LOOSE_ROUTE = 131,
	OPT_STRICT_ROUTE = 137,
};

/* Walks the options from `off` to `end`. Returns 0, or -1 when the packet is to be dropped: with a source route the
 * destination judged would not be the final one, as with an IPv6 routing header (RFC 7126 4.3, 4.4). */
static __noinline int opt_walk(struct __sk_buff *skb, __u32 off, __u32 end)
{
	for (int i = 0; i < OPT_MAX; i++) {
		struct {
			__u8 type;
			__u8 len;
		} o = {};

		if (off >= end)
			return 0;
		if (bpf_skb_load_bytes(skb, off, &o.type, sizeof(o.type)))
			return -1;
		if (o.type == OPT_END)
			return 0;
		if (o.type == OPT_NOP) {
			off++;
			continue;
		}
		if (o.type == OPT_LOOSE_ROUTE || o.type == OPT_STRICT_ROUTE)
			return -1;
		if (off + sizeof(o) > end || bpf_skb_load_bytes(skb, off, &o, sizeof(o)))
			return -1;
		off += o.len;
		if (o.len < sizeof(o) || off > end)
			return -1;
	}
	return off < end ? -1 : 0;
}
