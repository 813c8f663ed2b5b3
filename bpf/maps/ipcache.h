/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Who is it: an address to its identity and the node behind which it lives. Pod addresses are looked up in the
 * exact-match hash first; prefixes (pod CIDRs of nodes, CIDRs of policies, 0/0) in the LPM behind it. */
#pragma once

#include "../lib/addr.h"
#include "../lib/bpf.h"

enum ipcache_flags {
	IPC_F_NODE = 1 << 0,       /* address of a node of the cluster, this one or another */
	IPC_F_NO_MASQ = 1 << 1,    /* pods reach it under their own address */
	IPC_F_LOCAL_CIDR = 1 << 2, /* this node's own pod range: no endpoint there means nobody */
	IPC_F_TUNNEL = 1 << 3,     /* reached through the overlay, by the node in `tunnel` */
};

struct ipcache_key {
	__u32 prefixlen; /* bits of addr; IPv4 prefixes count from 96 */
	__u32 pad;       /* always 0; counted in prefixlen as 32 leading bits */
	struct addr addr;
};

struct ipcache_value {
	__u32 identity;
	__u32 flags;        /* enum ipcache_flags */
	struct addr tunnel; /* node address (outer), zero if none */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct addr);
	__type(value, struct ipcache_value);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} ipcache_exact_v1 SEC(".maps");

/* Who an address behind the overlay was until a moment ago: its node tells of a change before it sends under the new
 * identity, so for that long both are right. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct addr);
	__type(value, __u32); /* identity */
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} ipcache_was_v1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__type(key, struct ipcache_key);
	__type(value, struct ipcache_value);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} ipcache_v1 SEC(".maps");
