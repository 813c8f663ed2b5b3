//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* The first thing that a packet from outside meets where services are accelerated: denied sources end here, flows that are known go
 * on from here, and the rest passes. */
#include "../lib/bpf.h"
#include "../lib/fast.h"
#include "../lib/prefilter.h"

SEC("xdp")
int fast(struct xdp_md *ctx)
{
	int verdict = prefilter_frame(ctx);

	return verdict == XDP_PASS ? fast_frame(ctx) : verdict;
}

char _license[] SEC("license") = "Dual BSD/GPL";
