/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Records for user space and packet counters. Nothing here can fail a packet: what does not fit is counted as lost. */
#pragma once

#include "../maps/event.h"
#include "cfg.h"
#include "parse.h"
#include "pkt.h"

/* Numbers of metrics_v1's direction. */
static __always_inline __u32 metric_dir(const struct pkt *p)
{
	return p->flags & PKT_F_INGRESS ? 1 : p->flags & PKT_F_EGRESS ? 2 : 0;
}

static __always_inline void metric_count(struct __sk_buff *skb, const struct pkt *p, __u32 reason)
{
	__u32 key = reason << 2 | metric_dir(p);
	struct metric *m = bpf_map_lookup_elem(&metrics_v1, &key);

	if (m) {
		m->count++;
		m->bytes += skb->len;
	}
}

static __always_inline __u8 event_flags(const struct pkt *p)
{
	__u8 flags = 0;

	if (p->flags & PKT_F_REPLY)
		flags |= EVENT_F_REPLY;
	if (p->flags & PKT_F_CT)
		flags |= EVENT_F_REPLY_KNOWN;
	if (p->flags & PKT_F_INGRESS)
		flags |= EVENT_F_INGRESS;
	if (p->flags & PKT_F_EGRESS)
		flags |= EVENT_F_EGRESS;
	if (p->flags & PKT_F_AUDIT)
		flags |= EVENT_F_AUDIT;
	if (p->flags & PKT_F_LATER)
		flags |= EVENT_F_FRAGMENT;
	if (p->flags & PKT_F_L4)
		flags |= EVENT_F_L4;
	if (!addr_zero(&p->tunnel))
		flags |= EVENT_F_TUNNEL;
	return flags;
}

static __always_inline void event_fill(struct event *e, const struct pkt *p)
{
	bool icmp = proto_is_icmp(p->t.proto);

	e->time = bpf_ktime_get_ns();
	e->flags = event_flags(p);
	e->proto = p->t.proto;
	e->tcp_flags = p->tcp_flags;
	e->sport = icmp ? bpf_htons(p->t.type) : p->t.sport;
	e->dport = icmp ? bpf_htons(p->t.code) : p->t.dport;
	e->src_ep = p->from.ep;
	e->dst_ep = p->to.ep;
	e->src_identity = p->from.identity;
	e->dst_identity = p->to.identity;
	e->rule = p->last_rule;
	e->vni = p->vni;
	e->src = p->t.src;
	e->dst = p->t.dst;
	e->xlated = p->xlated;
	e->tunnel = p->tunnel;
	e->front = p->front;
	e->front_port = p->front_port;
	e->line = p->why;
	e->file = p->why >> 16;
	e->pad = 0;
	__builtin_memset(e->pad2, 0, sizeof(e->pad2));
}

static __noinline int event_send(struct __sk_buff *skb, const struct pkt *p, __u8 type, __u8 code, __u8 reason)
{
	__u32 zero = 0, cpu = bpf_get_smp_processor_id();
	struct event_count *count = bpf_map_lookup_elem(&event_count_v1, &zero);
	void *ring = bpf_map_lookup_elem(&events_v1, &cpu);
	struct event *e;

	if (!count)
		return 0;
	if (!ring) {
		count->lost++;
		return 0;
	}
	e = bpf_ringbuf_reserve(ring, sizeof(*e), 0);
	if (!e) {
		count->lost++;
		return 0;
	}
	count->stored++;
	event_fill(e, p);
	e->type = type;
	e->code = code;
	e->reason = reason;
	e->eth_proto = skb->protocol;
	e->ifindex = skb->ifindex;
	e->len = skb->len;
	if (!p->l3 || bpf_skb_load_bytes(skb, 0, e->dst_mac, sizeof(e->dst_mac)))
		__builtin_memset(e->dst_mac, 0, sizeof(e->dst_mac));
	if (!p->l3 || bpf_skb_load_bytes(skb, sizeof(e->dst_mac), e->src_mac, sizeof(e->src_mac)))
		__builtin_memset(e->src_mac, 0, sizeof(e->src_mac));
	bpf_ringbuf_submit(e, 0);
	return 0;
}

/* Why a trace is sent, in the flow API's words. */
static __always_inline __u8 trace_reason(const struct pkt *p)
{
	if (p->flags & PKT_F_ERROR)
		return REASON_RELATED;
	if (p->flags & PKT_F_REOPENED)
		return REASON_REOPENED;
	if (p->flags & PKT_F_NEW)
		return REASON_NEW;
	if (p->flags & PKT_F_REPLY)
		return REASON_REPLY;
	return p->flags & PKT_F_CT ? REASON_ESTABLISHED : REASON_UNKNOWN;
}

/* The packet goes on: counted always, told when conn_admit found that it is due. */
static __always_inline void trace(struct __sk_buff *skb, struct pkt *p, enum trace_point point)
{
	metric_count(skb, p, 0);
	if (cfg.flags & CFG_TRACE && p->flags & PKT_F_REPORT)
		event_send(skb, p, EVENT_TRACE, point, trace_reason(p));
}
