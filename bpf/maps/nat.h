/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Translated connections, two rows each: forward (workload -> outside, client -> service) and reverse (what comes back). The
 * kernel may evict either: they count only together. */
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
	__be16 sport; /* ICMP echo: id */
	__be16 dport;
	__u8 proto;
	__u8 dir; /* enum nat_dir */
	__u8 pad[2];
};

/* What the packet becomes. */
struct nat_value {
	struct addr src;
	struct addr dst;
	__be16 sport; /* ICMP echo: id, as in the key */
	__be16 dport;
	__u32 slots; /* forward row of a service: the slot set that the backend was chosen from, else 0 */
	__u64 created; /* ns; both rows of a pair carry the same value */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct nat_key);
	__type(value, struct nat_value);
	__uint(max_entries, 131072);
} nat_v2 SEC(".maps");
