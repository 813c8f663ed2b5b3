/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Sources that are dropped before anything else: whole addresses in a hash, prefixes in a trie. Neither of them is asked, nor
 * takes memory, while it has nothing to say. */
#pragma once

#include "../lib/addr.h"
#include "../lib/bpf.h"
#include "event.h"

enum prefilter_flags {
	PREFILTER_F_PREFIX4 = 1 << 0, /* there are IPv4 prefixes in prefilter_v1 */
	PREFILTER_F_PREFIX6 = 1 << 1,
};

struct prefilter_state {
	__u64 revision; /* of the list that the rows are, for those who read */
	__u32 flags; /* enum prefilter_flags */
	__u32 pad;
};

/* One row, key 0. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct prefilter_state);
	__uint(max_entries, 1);
} prefilter_state_v1 SEC(".maps");

struct prefilter_set {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct addr);
	__type(value, __u8);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
};

/* Key 0 is the hash, of a size that fits what is in it: a hash pays for its size in advance. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(key_size, sizeof(__u32));
	__uint(max_entries, 1);
	__array(values, struct prefilter_set);
} prefilter_exact_v1 SEC(".maps");

/* The family keeps ::/0 from being all of IPv4 too. */
struct prefilter_key {
	__u32 prefixlen; /* 32 (family) + bits of addr; IPv4 prefixes count from 96 */
	__u32 family; /* enum family */
	struct addr addr;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__type(key, struct prefilter_key);
	__type(value, __u8);
	__uint(max_entries, 1048576);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} prefilter_v1 SEC(".maps");

/* What was dropped. The flow API has no reason for it, so it is no row of metrics_v1. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct metric);
	__uint(max_entries, 1);
} prefilter_count_v1 SEC(".maps");
