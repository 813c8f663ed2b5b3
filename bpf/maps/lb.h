/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Services: address -> frontend -> slot of an immutable set -> backend. A change writes a new set, complete, and then the
 * frontend's row, so that what a row says of its set is always true; the old set goes when nobody can hold it any more. */
#pragma once

#include "../lib/addr.h"
#include "../lib/bpf.h"

/* What an address is. An address without a row has nothing to do with services: most destinations end here. */
enum lb_address_flags {
	LB_A_VIP = 1 << 0, /* what no frontend of it wants is refused */
	LB_A_NODE = 1 << 1, /* the node's own: frontends of the zero address of its family are here too */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct addr);
	__type(value, __u32); /* enum lb_address_flags */
	__uint(max_entries, 131072); /* one for each frontend, and the node's own */
	__uint(map_flags, BPF_F_NO_PREALLOC);
} lb_address_v1 SEC(".maps");

enum lb_scope {
	LB_EXTERNAL = 0, /* everybody, but for whom an internal frontend is there */
	LB_INTERNAL = 1, /* workloads and nodes of the cluster */
};

struct lb_frontend_key {
	struct addr addr; /* the zero address of a family: any address of the node */
	__be16 port;
	__u8 proto;
	__u8 scope; /* enum lb_scope */
	__u32 pad;
};

enum lb_frontend_flags {
	LB_F_RANGES_DENY = 1 << 0, /* `ranges` are those who may not come from outside, not those who may */
	LB_F_LOCAL = 1 << 1, /* the slots were cut to this node's own backends */
};

struct lb_frontend {
	__u32 service;
	__u32 slots; /* slot set, 0: nobody is there */
	__u32 count; /* slots of the set that new flows get; 0: only who is kept */
	__u32 table; /* length of its Maglev table; 0: random selection */
	__u32 affinity; /* seconds that a client stays with its backend, 0: no affinity */
	__u32 ranges; /* set of prefixes in lb_source_v1; 0: everybody may come from outside */
	__u8 flags; /* enum lb_frontend_flags */
	__u8 type; /* model.ServiceType, for those who read */
	__u16 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct lb_frontend_key);
	__type(value, struct lb_frontend);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} lb_frontend_v1 SEC(".maps");

struct lb_slot_key {
	__u32 slots;
	__u32 index; /* below lb_frontend.count; in the order of backends' addresses */
};

struct lb_backend {
	struct addr addr;
	__be16 port;
	__u8 proto;
	__u8 pad[5];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct lb_slot_key);
	__type(value, struct lb_backend);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} lb_slot_v1 SEC(".maps");

/* Maglev tables, in pieces of a hash: an array for each would have to be a map of its own, and putting one into a map of
 * maps waits for every CPU. */
#define LB_PIECE 64

struct lb_maglev_key {
	__u32 slots;
	__u32 piece;
};

struct lb_maglev {
	__u16 index[LB_PIECE];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct lb_maglev_key);
	__type(value, struct lb_maglev);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} lb_maglev_v1 SEC(".maps");

/* Who belongs to a set: those in its slots, and those that only keep what they have. Only sets of frontends with flows
 * that stay with their backend have such rows. */
struct lb_member {
	struct addr addr;
	__u32 slots;
	__be16 port;
	__u16 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct lb_member);
	__type(value, __u8);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} lb_member_v1 SEC(".maps");

enum lb_client {
	LB_CLIENT_ADDRESS = 0,
	LB_CLIENT_NETNS = 1, /* cookie of a network namespace, in the low half */
	LB_CLIENT_SOCKET = 2, /* cookie of an unconnected datagram socket, whose datagrams go to one place */
};

struct lb_affinity_key {
	struct addr client;
	__u32 service;
	__u8 kind; /* enum lb_client */
	__u8 pad[3];
};

struct lb_affinity {
	struct addr addr;
	__u64 used; /* ns, bpf_ktime_get_ns clock */
	__be16 port;
	__u16 pad[3];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct lb_affinity_key);
	__type(value, struct lb_affinity);
	__uint(max_entries, 65536);
} lb_affinity_v1 SEC(".maps");

/* What a socket believes to talk to. */
struct lb_reverse_key {
	__u64 socket; /* cookie */
	struct addr addr; /* the backend */
	__be16 port;
	__u8 proto;
	__u8 pad[5];
};

enum lb_reverse_flags {
	LB_R_TOLD = 1 << 0, /* an event has told of the way back */
};

struct lb_reverse {
	struct addr addr;
	__be16 port;
	__u16 flags; /* enum lb_reverse_flags */
	__u32 service;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct lb_reverse_key);
	__type(value, struct lb_reverse);
	__uint(max_entries, 65536);
} lb_reverse_v1 SEC(".maps");

/* Sets of prefixes, immutable as slot sets are. */
struct lb_source_key {
	__u32 prefixlen; /* 32 (ranges) + bits of addr; IPv4 prefixes count from 96 */
	__u32 ranges;
	struct addr addr;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__type(key, struct lb_source_key);
	__type(value, __u8);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} lb_source_v1 SEC(".maps");
