/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Ports of a datagram's first fragment, for those that follow it. */
#pragma once

#include "../lib/addr.h"
#include "../lib/bpf.h"

struct frag_key {
	struct addr src;
	struct addr dst;
	__u32 id; /* IPv4: 16 bits, IPv6: 32 bits; network byte order as on the wire */
	__u8 proto;
	__u8 pad[3];
};

struct frag_value {
	__be16 sport;
	__be16 dport;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct frag_key);
	__type(value, struct frag_value);
	__uint(max_entries, 8192);
} frag_v1 SEC(".maps");
