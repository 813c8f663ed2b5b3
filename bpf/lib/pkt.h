/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* What the programs know of the packet in hand. It lives in the CPU's scratch row: on the stack it would leave too little
 * to the functions below, and the verifier would follow every value in it. */
#pragma once

#include "../maps/ct.h"
#include "../maps/nat.h"
#include "../maps/node.h"
#include "../maps/scratch.h"
#include "addr.h"
#include "bpf.h"
#include "reason.h"

/* Every offset counts from where the packet begins, which is the Ethernet header unless pkt.l3 says otherwise. */
enum {
	L3_OFF = ETH_HLEN,
};

/* Flow of a packet, in the packet's own direction. */
struct tuple {
	struct addr src;
	struct addr dst;
	__be16 sport; /* ICMP echo: the id, in both directions */
	__be16 dport; /* ICMP: 0 */
	__u8 proto; /* IP protocol */
	__u8 type; /* ICMP */
	__u8 code; /* ICMP */
	__u8 pad;
};

/* One end of a packet. */
struct who {
	__u32 identity;
	__u32 set; /* policy set, 0 = not a workload of this node */
	__u16 ep; /* endpoint number, 0 likewise */
	__u16 flags; /* enum endpoint_flags */
};

/* ICMP errors that a refused packet is answered with. */
enum pkt_answer {
	ANSWER_NONE,
	ANSWER_TOO_BIG,
	ANSWER_TIME_EXCEEDED,
	ANSWER_UNREACHABLE, /* port */
};

/* Where a packet leaves the node. */
struct hop {
	__u32 ifindex;
	__u32 family; /* of the next hop */
	__u8 addr[16];
};

/* What delivery needs to know of the destination. Copied, because a pointer kept across admission multiplies what the
 * verifier has to look at. */
struct target {
	struct addr peer; /* not of this node: the node it is behind */
	__u32 ifindex; /* of this node: host side of its device pair, else 0 */
	__u32 flags; /* not of this node: enum ipcache_flags */
	__u8 mac[6];
	__u8 host_mac[6];
};

enum pkt_flags {
	PKT_F_V6 = 1 << 0,
	PKT_F_FIRST = 1 << 1, /* first fragment of several */
	PKT_F_LATER = 1 << 2, /* a later one: no L4 header here */
	PKT_F_ERROR = 1 << 3, /* ICMP error: `quote` is the packet it is about */
	PKT_F_L4 = 1 << 4, /* ports (ICMP: type and code) are known */
	PKT_F_NEW = 1 << 5, /* first packet of its connection */
	PKT_F_REPLY = 1 << 6, /* travels against its connection's direction */
	PKT_F_REOPENED = 1 << 7,
	PKT_F_REPORT = 1 << 8, /* a trace event is due */
	PKT_F_MASQ = 1 << 9, /* leaves under the node's address */
	PKT_F_AUDIT = 1 << 10, /* denied, passes by audit mode */
	PKT_F_INGRESS = 1 << 11, /* seen from the workload concerned; */
	PKT_F_EGRESS = 1 << 12, /* neither is unknown */
	PKT_F_CT = 1 << 13, /* its connection is known, so F_REPLY means something */
	PKT_F_STALE = 1 << 14, /* re-judged: its row was older than the policy */
	PKT_F_ANSWER = 1 << 15, /* was masqueraded: passes only as part of a connection on record */
};

/* The time when jiffies last moved. */
struct clock {
	__u64 jiffies;
	__u64 ns; /* bpf_ktime_get_ns */
};

struct pkt {
	struct tuple t;
	struct tuple quote; /* quoted packet turned round, so that it travels as the error does */
	struct who from;
	struct who to;
	struct addr xlated; /* the source that it leaves under, zero: its own */
	struct addr front; /* the service that its connection's initiator speaks to, zero: none */
	struct addr tunnel; /* for events: outer peer */
	struct hop via;
	struct target dest;
	struct addr backend; /* of a client's packet that another node sent on as it was */
	union ct_end origin; /* where the sender lives, as origin_flags say: CT_F_HERE, CT_F_THERE or, not known, 0 */
	__u32 epoch; /* of policy, when the packet came */
	__u32 vni;
	__u32 becomes; /* identity */
	__u32 rule[2]; /* that decided: enum policy_dir */
	__u32 last_rule; /* of the two, the one asked last */
	__u32 frag_id;
	__u32 why; /* enum source_file << 16 | line of the last failure */
	__be16 xlated_port;
	__be16 front_port;
	__be16 own_port; /* the client's, where the backend knows it by another; 0: by its own */
	__u32 l4_len; /* bytes from `l4` to the end of the IP packet */
	__u16 l4; /* offset of the L4 header */
	__u16 quote_l3; /* offsets of the quoted headers */
	__u16 quote_l4;
	__u16 flags; /* enum pkt_flags */
	__u16 origin_flags;
	__u16 answer_mtu; /* with ANSWER_TOO_BIG */
	__u8 answer; /* enum pkt_answer: what a workload is told besides */
	__u16 frag_off; /* bytes */
	__u8 tcp_flags;
	__u8 hop; /* TTL or hop limit */
	__u8 l3; /* offset of the IP header: L3_OFF, or 0 on a device without a link layer */
	__u8 l4_header; /* bytes of the TCP or UDP header */
	__u8 room; /* bytes by which it grows when it leaves */
	bool dont_fragment;
	bool plain_header; /* no IP options, no extension headers */
	bool service; /* its connection goes by way of a service */
	bool told; /* as another node said of it, which sent it on */
	bool one_way; /* for a service on another node, which answers the client itself */
	bool passing; /* the sender is about to be somebody else, `becomes`: no verdict about it is kept */
	struct clock clock; /* not of the packet: see pkt_now */
	/* Room for those who translate, so that they need less of the stack. Not cleared. */
	struct nat_key nat;
	struct nat_value nat_to;
};

_Static_assert(sizeof(struct pkt) <= sizeof(struct scratch), "struct pkt outgrew the scratch row");

/* A blank one; NULL cannot happen, but the verifier wants it asked. The epoch is read before any other row: a verdict
 * that rests on a row which changes meanwhile is then one of an older epoch. */
static __always_inline struct pkt *pkt_new(enum pkt_flags flags)
{
	__u32 zero = 0;
	struct pkt *p = bpf_map_lookup_elem(&scratch_v1, &zero);
	struct state *state = bpf_map_lookup_elem(&state_v1, &zero);

	if (!p || !state)
		return NULL;
	__builtin_memset(p, 0, offsetof(struct pkt, clock));
	p->flags = flags;
	p->l3 = L3_OFF;
	p->epoch = *(volatile __u32 *)&state->epoch;
	return p;
}

/* What was inside the one in hand is the packet now, at the same place and judged by the same epoch. */
static __always_inline void pkt_again(struct pkt *p)
{
	__u16 flags = p->flags & (PKT_F_INGRESS | PKT_F_EGRESS);
	__u32 epoch = p->epoch;
	__u8 l3 = p->l3;

	__builtin_memset(p, 0, offsetof(struct pkt, clock));
	p->flags = flags;
	p->epoch = epoch;
	p->l3 = l3;
}

/* The scratch row as it is, for who fills in what it reads: of the last packet there is all but the epoch. */
static __always_inline struct pkt *pkt_scratch(void)
{
	__u32 zero = 0;
	struct pkt *p = bpf_map_lookup_elem(&scratch_v1, &zero);
	struct state *state = bpf_map_lookup_elem(&state_v1, &zero);

	if (!p || !state)
		return NULL;
	p->epoch = *(volatile __u32 *)&state->epoch;
	return p;
}

/* The one in hand, for a function that does not get it from its caller. */
static __always_inline struct pkt *pkt_this(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&scratch_v1, &zero);
}

/* Time in ns, a few ms late at most, and not the same on all CPUs: reading the clock costs a third of what an established
 * packet does, jiffies cost nothing. */
static __always_inline __u64 pkt_now(struct pkt *p)
{
	__u64 jiffies = bpf_jiffies64();

	if (p->clock.jiffies != jiffies) {
		p->clock.jiffies = jiffies;
		p->clock.ns = bpf_ktime_get_ns();
	}
	return p->clock.ns;
}

/* Remembers where it went wrong. Returns the reason as a negative number. */
static __always_inline int fail(struct pkt *p, enum drop_reason reason, enum source_file file, __u16 line)
{
	p->why = (__u32)file << 16 | line;
	return -(int)reason;
}

static __always_inline bool pkt_v6(const struct pkt *p)
{
	return p->flags & PKT_F_V6;
}
