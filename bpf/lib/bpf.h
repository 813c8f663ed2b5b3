/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* The kernel's and libbpf's headers, in the one order that works. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

/* Address families, as bpf_fib_lookup and bpf_redirect_neigh want them (sys/socket.h is not for BPF). */
enum family {
	FAMILY_IPV4 = 2,
	FAMILY_IPV6 = 10,
};

/* Protocols that linux/in.h leaves to linux/in6.h. */
enum proto {
	PROTO_HOPOPTS = 0,
	PROTO_ICMP = 1,
	PROTO_IPIP = 4,
	PROTO_TCP = 6,
	PROTO_UDP = 17,
	PROTO_IPV6 = 41,
	PROTO_ROUTING = 43,
	PROTO_FRAGMENT = 44,
	PROTO_AH = 51,
	PROTO_ICMPV6 = 58,
	PROTO_DSTOPTS = 60,
	PROTO_SCTP = 132,
};

/* skb->pkt_type of a packet that the stack takes for its own. */
enum pkt_type {
	PKT_TYPE_HOST = 0,
};
