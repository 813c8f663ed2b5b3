/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Working memory of the program that runs on a CPU, too big for its stack. Programs do not nest, and keep nothing in it
 * from one packet to the next but the time. */
#pragma once

#include "../lib/bpf.h"

struct scratch {
	__u64 word[80];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct scratch);
	__uint(max_entries, 1);
} scratch_v1 SEC(".maps");
