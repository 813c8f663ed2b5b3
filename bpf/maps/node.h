/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* The node: its devices to the outside, and the little state that changes at run time. */
#pragma once

#include "../lib/addr.h"
#include "../lib/bpf.h"

struct device {
	struct addr masq4; /* address that pods leave under, zero if none */
	struct addr masq6;
	__u32 mtu;
	__u32 flags;       /* DEV_F_* */
};

enum device_flags {
	DEV_F_L3 = 1 << 0, /* no link-layer header (tun) */
};

/* Keyed by ifindex. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct device);
	__uint(max_entries, 256);
} devices_v1 SEC(".maps");

enum state_flags {
	STATE_F_AUDIT = 1 << 0, /* audit mode for every endpoint */
};

struct state {
	__u32 epoch; /* policy epoch; read before judging, stored with the verdict */
	__u32 flags; /* enum state_flags */
};

/* One row, key 0. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct state);
	__uint(max_entries, 1);
} state_v1 SEC(".maps");
