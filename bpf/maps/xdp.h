/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* The fast path of services in XDP: by which devices it may send, and what it did. */
#pragma once

#include "../lib/bpf.h"
#include "event.h"

/* Devices that take frames from XDP, by ifindex: those at which the program runs itself. The kernel takes out those that go. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__type(key, __u32);
	__type(value, __u32); /* the same ifindex */
	__uint(max_entries, 256);
} xdp_devices_v1 SEC(".maps");

enum fast_count {
	FAST_SENT = 0, /* translated and sent on */
	FAST_LEFT = 1, /* of a service, or an answer to the node: left to tc */
	FAST_COUNTS,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32); /* enum fast_count */
	__type(value, struct metric);
	__uint(max_entries, FAST_COUNTS);
} xdp_count_v1 SEC(".maps");
