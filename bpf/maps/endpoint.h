/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Local workloads by address: one row per address, so one lookup both finds the workload and pins its source. */
#pragma once

#include "../lib/addr.h"
#include "../lib/bpf.h"

enum endpoint_flags {
	EP_F_AUDIT = 1 << 0, /* what policy denies passes with verdict AUDIT */
	EP_F_NO_MASQ = 1 << 1, /* leaves the cluster under its own address */
};

struct endpoint {
	__u32 ifindex;    /* host side of the workload's device pair */
	__u32 identity;   /* security identity of its labels */
	__u32 policy_set; /* compiled policy, both directions; no set 0 */
	__u16 id;         /* endpoint number on this node */
	__u16 flags;      /* enum endpoint_flags */
	__u8 mac[6];      /* the workload's own MAC */
	__u8 host_mac[6]; /* MAC of the host side */
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct addr);
	__type(value, struct endpoint);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} endpoints_v1 SEC(".maps");
