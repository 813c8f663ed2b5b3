/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Connection table: one row per connection on an order-normalised tuple, found from both ends. It caches the verdict
 * with the policy epoch under which it was given. */
#pragma once

#include "../lib/addr.h"
#include "../lib/bpf.h"

struct ct_key {
	struct addr addr[2]; /* lower address first (memcmp); ports break a tie */
	__be16 port[2];      /* ICMP echo: the id on the requester's side, the request type on the other;
			      * other ICMP: type << 8 | code on the sender's side */
	__u8 proto;
	__u8 asker;          /* ICMP: which address asked, so that an id reused the other way is another row */
	__u8 pad[2];
};

enum ct_flags {
	CT_F_ORIG_HIGH = 1 << 0, /* the initiator is addr[1] */
	CT_F_SEEN_REPLY = 1 << 1,
	CT_F_FIN_ORIG = 1 << 2,
	CT_F_FIN_REPLY = 1 << 3,
	CT_F_RST = 1 << 4,
	CT_F_AUDIT = 1 << 5,  /* some direction passes only by audit */
	CT_F_NAT = 1 << 6,    /* masqueraded: a pair in nat_v2 belongs to it */
	/* What is known of the ends, each bit twice: of the initiator (end[0]), and shifted by one of the other (end[1]). */
	CT_F_HERE = 1 << 7, /* a workload of this node: `here` */
	CT_F_THERE = 1 << 9, /* a workload behind the overlay: `node` */
	CT_F_SERVICE = 1 << 11, /* its initiator speaks to a service: a pair in nat_v2 knows which */
	CT_F_TOLD = 1 << 12, /* as another node said, once for all its packets */
};

struct ct_here {
	__u32 ifindex; /* host side of the workload's device pair */
	__u8 mac[6]; /* the workload's own */
	__u8 host_mac[6]; /* of the host side */
};

/* Where one end of a connection lives, so that an established packet needs no other row than its connection's. Good for
 * the row's epoch, as the verdict is: an address that moves starts a new one. */
union ct_end {
	struct ct_here here;
	struct addr node; /* outer address of its node */
};

struct ct_value {
	__u64 expires; /* ns, bpf_ktime_get_ns clock */
	__u64 reported[2]; /* ns of the last trace event, original / reply direction */
	__u64 packets[2]; /* only with accounting on */
	__u64 bytes[2];
	__u32 epoch; /* policy epoch of the cached verdict */
	__u32 rule[2]; /* rule that allowed it: enum policy_dir */
	__u32 src_identity; /* of the initiator, as judged */
	__u32 dst_identity;
	__u16 flags; /* enum ct_flags */
	__u8 tcp_flags[2]; /* union of the TCP flags reported, original / reply */
	union ct_end end[2]; /* initiator, responder */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct ct_key);
	__type(value, struct ct_value);
	__uint(max_entries, 262144);
} ct_v1 SEC(".maps");
