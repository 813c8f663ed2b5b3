/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* What the datapath tells: one ring per CPU, a fixed-size record, and counters that add up exactly:
 * records produced = records stored + records counted as lost. */
#pragma once

#include "../lib/addr.h"
#include "../lib/bpf.h"

enum event_type { /* numbers of the flow API */
	EVENT_DROP = 1,
	EVENT_TRACE = 4,
	EVENT_POLICY_VERDICT = 5,
	EVENT_TRACE_SOCK = 7,
};

enum event_flags {
	EVENT_F_REPLY = 1 << 0,      /* reply direction of its connection */
	EVENT_F_REPLY_KNOWN = 1 << 1,/* the connection is known, so F_REPLY means something */
	EVENT_F_INGRESS = 1 << 2,    /* direction is ingress (towards a local endpoint), */
	EVENT_F_EGRESS = 1 << 3,     /* or egress (from one); neither = unknown */
	EVENT_F_AUDIT = 1 << 4,      /* denied, passed by audit mode */
	EVENT_F_FRAGMENT = 1 << 5,   /* not the first fragment: ports from the first */
	EVENT_F_TUNNEL = 1 << 6,     /* `tunnel` and `vni` are set */
	EVENT_F_L4 = 1 << 7,         /* proto and ports were parsed */
};

enum trace_point { /* numbers of the flow API */
	TRACE_TO_ENDPOINT = 0,
	TRACE_TO_PROXY = 1,
	TRACE_TO_HOST = 2,
	TRACE_TO_STACK = 3,
	TRACE_TO_OVERLAY = 4,
	TRACE_FROM_ENDPOINT = 5,
	TRACE_FROM_HOST = 7,
	TRACE_FROM_STACK = 8,
	TRACE_FROM_OVERLAY = 9,
	TRACE_FROM_NETWORK = 10,
	TRACE_TO_NETWORK = 11,
};

enum trace_reason { /* numbers of the flow API */
	REASON_UNKNOWN = 0,
	REASON_NEW = 1,
	REASON_ESTABLISHED = 2,
	REASON_REPLY = 3,
	REASON_RELATED = 4,
	REASON_REOPENED = 5,
};

struct event {
	__u64 time;          /* ns, bpf_ktime_get_ns clock */
	__u8 type;           /* enum event_type */
	__u8 code;           /* drop: reason; trace: enum trace_point; verdict: enum policy_verdict */
	__u8 flags;          /* enum event_flags */
	__u8 reason;         /* trace: enum trace_reason; verdict: policy match type of the flow API */
	__u8 proto;          /* IP protocol */
	__u8 tcp_flags;      /* as on the wire, low byte */
	__be16 eth_proto;
	__be16 sport;        /* ICMP: type */
	__be16 dport;        /* ICMP: code */
	__u16 src_ep;        /* endpoint numbers on this node, 0 = not local or unknown */
	__u16 dst_ep;
	__u32 src_identity;
	__u32 dst_identity;
	__u32 rule;          /* rule that decided, 0 = none was asked */
	__u32 ifindex;       /* device where it was seen */
	__u32 len;           /* bytes of the packet */
	__u32 vni;
	struct addr src;
	struct addr dst;
	struct addr xlated;  /* source after masquerade, zero if none */
	struct addr tunnel;  /* outer peer address, zero if none */
	struct addr front;   /* the service that the connection's initiator speaks to, zero if none */
	__u8 src_mac[6];
	__u8 dst_mac[6];
	__u16 line;          /* drop: source line, with `file` */
	__u8 file;           /* enum source_file in lib/drop.h */
	__u8 pad;
	__be16 front_port;
	__u16 pad2[3];
};

enum sock_point { /* numbers of the flow API */
	SOCK_PRE_FWD = 1, /* towards the service, */
	SOCK_POST_FWD = 2,/* which is this backend */
	SOCK_PRE_REV = 3, /* from the backend, */
	SOCK_POST_REV = 4,/* which the socket knows as this service */
};

/* Of a socket, before there is a packet. It is told apart from the other record by its size. */
struct sock_event {
	__u64 time;    /* ns, bpf_ktime_get_ns clock */
	__u8 type;     /* EVENT_TRACE_SOCK or EVENT_DROP */
	__u8 code;     /* enum sock_point; drop: reason */
	__u8 flags;    /* enum event_flags */
	__u8 proto;    /* IP protocol */
	__be16 front_port;
	__be16 back_port;
	__u64 socket;  /* cookie */
	__u64 cgroup;  /* of the process that asked */
	__u64 netns;   /* cookie */
	struct addr front;
	struct addr back; /* zero if there is none */
	__u32 service;
	__u16 line;    /* drop: source line, with `file` */
	__u8 file;     /* enum source_file */
	__u8 pad;
};

struct event_ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
};

/* Keyed by CPU; rings are created and inserted by the loader. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(key_size, sizeof(__u32));
	__uint(max_entries, 1);
	__array(values, struct event_ring);
} events_v1 SEC(".maps");

struct event_count {
	__u64 stored;
	__u64 lost;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct event_count);
	__uint(max_entries, 1);
} event_count_v1 SEC(".maps");

#define METRIC_SLOTS 1024

struct metric {
	__u64 count;
	__u64 bytes;
};

/* Keyed by (reason << 2 | direction): reason 0 = forwarded, else the drop reason; direction 0 unknown, 1 ingress, 2 egress. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct metric);
	__uint(max_entries, METRIC_SLOTS);
} metrics_v1 SEC(".maps");
