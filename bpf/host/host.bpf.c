//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
#include "../lib/bpf.h"
#include <linux/pkt_cls.h>
#include "../lib/cfg.h"
#include "../maps/ct.h"
#include "../maps/endpoint.h"
#include "../maps/event.h"
#include "../maps/frag.h"
#include "../maps/ipcache.h"
#include "../maps/nat.h"
#include "../maps/node.h"
#include "../maps/policy.h"

SEC("tc")
int from_netdev(struct __sk_buff *skb)
{
	__u32 key = skb->ifindex;

	if (!(cfg.flags & (CFG_IPV4 | CFG_IPV6)))
		return TC_ACT_SHOT;
	return bpf_map_lookup_elem(&devices_v1, &key) ? TC_ACT_OK : TC_ACT_SHOT;
}

char _license[] SEC("license") = "Dual BSD/GPL";
