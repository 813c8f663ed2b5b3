//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* The first thing that a packet from outside meets: sent from a denied address, it ends here. */
#include "../lib/prefilter.h"

SEC("xdp")
int prefilter(struct xdp_md *ctx)
{
	return prefilter_frame(ctx);
}

/* On a device without a link layer a packet begins with its IP header. */
SEC("xdp")
int prefilter_l3(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	__u8 *first = (void *)(long)ctx->data, version;

	if ((void *)(first + 1) > end)
		return XDP_PASS;
	version = *first >> 4;
	return prefilter_ip(ctx, first, version == 4 ? bpf_htons(ETH_P_IP) : version == 6 ? bpf_htons(ETH_P_IPV6) : 0);
}

char _license[] SEC("license") = "Dual BSD/GPL";
