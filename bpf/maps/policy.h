/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* May it: peer -> class, then (policy set, direction, class) -> a short list. Precedence is resolved by the
 * compiler; the first entry that matches decides. A class without a row of its own falls back to CLASS_ANY. */
#pragma once

#include "../lib/addr.h"
#include "../lib/bpf.h"

#define CLASS_ANY       0          /* row of the peers that no L3 selector of the set names */
#define POLICY_LIST_MAX 16   /* entries in one value; longer lists live in the overflow map */

enum policy_dir {
	POLICY_INGRESS = 0,
	POLICY_EGRESS = 1,
};

enum policy_verdict {
	VERDICT_DENY = 0,
	VERDICT_ALLOW = 1,
	VERDICT_REDIRECT = 2,
	VERDICT_AUTH = 3,
	VERDICT_MASK = 0x0f,
	VERDICT_F_AUDIT = 0x80, /* with DENY: passes, reported as AUDIT */
};

enum policy_flags {
	POLICY_F_OVERFLOW = 1 << 0, /* the list is in policy_overflow_v1; `entry` is empty */
};

struct policy_key {
	__u32 set;
	__u32 class;
	__u32 dir; /* enum policy_dir */
};

struct policy_entry {
	__u16 port_lo;    /* host byte order, inclusive; ICMP: the type */
	__u16 port_hi;
	__u8 proto;       /* IP protocol, 0 = any (then ports are ignored) */
	__u8 verdict;     /* enum policy_verdict */
	__u16 proxy_port; /* host byte order, with VERDICT_REDIRECT */
	__u32 rule;       /* rule id that decides here */
};

struct policy_value {
	__u32 default_rule;   /* decides when no entry matches */
	__u8 default_verdict; /* enum policy_verdict */
	__u8 count;           /* entries used */
	__u16 flags;          /* enum policy_flags */
	struct policy_entry entry[POLICY_LIST_MAX];
};

struct policy_overflow_key {
	__u32 prefixlen; /* 80 (set, class, dir, proto) + bits of port */
	__u32 set;
	__u32 class;
	__u8 dir;
	__u8 proto;  /* looked up as is, then as 0 with port 0 */
	__be16 port;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32); /* identity */
	__type(value, __u32); /* class; an identity without a row is unknown and is dropped */
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} class_v1 SEC(".maps");

/* Blocks of policies that mean addresses, whoever lives there (ipBlock, networks): an address is in the area of the narrowest
 * one around it. The family keeps ::/0 from being all of IPv4 too. */
struct area_key {
	__u32 prefixlen; /* 32 (family) + bits of addr; IPv4 prefixes count from 96 */
	__u32 family; /* enum family */
	struct addr addr;
};

enum area_flags {
	AREA_F_STRICT = 1 << 0, /* a block around it may deny: who is not known to live here is dropped */
};

struct area {
	__u32 id; /* no area 0 */
	__u32 flags; /* enum area_flags */
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__type(key, struct area_key);
	__type(value, struct area);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} area_v1 SEC(".maps");

/* A workload or node at an address in an area. */
struct peer {
	__u32 identity;
	__u32 area;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct peer);
	__type(value, __u32); /* class, instead of that in class_v1 */
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} class_at_v1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct policy_key);
	__type(value, struct policy_value);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} policy_v1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__type(key, struct policy_overflow_key);
	__type(value, struct policy_entry);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} policy_overflow_v1 SEC(".maps");
