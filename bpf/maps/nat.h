/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Masquerade: two rows per connection, forward (pod -> outside) and reverse (outside -> node port). */
#pragma once

#include "../lib/addr.h"
#include "../lib/bpf.h"

enum nat_dir {
	NAT_FORWARD = 0,
	NAT_REVERSE = 1,
};

struct nat_key {
	struct addr src; /* of the packet before translation */
	struct addr dst;
	__be16 sport;    /* ICMP echo: id */
	__be16 dport;
	__u8 proto;
	__u8 dir;        /* enum nat_dir */
	__u8 pad[2];
};

struct nat_value {
	struct addr addr; /* forward: the new source; reverse: the new destination */
	__be16 port;
	__u16 pad;
	__u32 ifindex;    /* device it leaves by */
	__u64 created;    /* ns; both rows of a pair carry the same value */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct nat_key);
	__type(value, struct nat_value);
	__uint(max_entries, 131072);
} nat_v1 SEC(".maps");
