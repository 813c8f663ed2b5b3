/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* What is known of the node's devices to the outside. */
#pragma once

#include "../maps/node.h"
#include "pkt.h"

static __always_inline __u32 device_mtu(__u32 ifindex)
{
	struct device *d = bpf_map_lookup_elem(&devices_v1, &ifindex);

	return d && d->mtu ? d->mtu : 65535;
}

/* The node's address on the device that a packet leaves by. Returns 0, or -1 if it has none there. */
static __always_inline int device_addr(const struct pkt *p, struct addr *a)
{
	__u32 ifindex = p->via.ifindex;
	struct device *d = bpf_map_lookup_elem(&devices_v1, &ifindex);

	if (!d)
		return -1;
	*a = pkt_v6(p) ? d->masq6 : d->masq4;
	return addr_zero(a) ? -1 : 0;
}
