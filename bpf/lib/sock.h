/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* What the programs of sockets tell and count. Unlike those of packets they may be interrupted by one of those at any
 * instruction, so they count by atomic instructions and keep nothing per CPU. */
#pragma once

#include <linux/errno.h>

#include "../maps/event.h"
#include "cfg.h"
#include "lb.h"
#include "reason.h"

/* A socket's talk with a service. */
struct talk {
	struct addr front;
	struct addr back;
	__be16 front_port;
	__be16 back_port;
	__u32 service;
};

static __noinline int talk_tell(struct bpf_sock_addr *ctx, const struct talk *t, __u8 type, __u8 code, __u32 line)
{
	__u32 zero = 0, cpu = bpf_get_smp_processor_id();
	struct event_count *count = bpf_map_lookup_elem(&event_count_v1, &zero);
	void *ring = bpf_map_lookup_elem(&events_v1, &cpu);
	struct sock_event *e = NULL;

	if (!count)
		return 0;
	if (ring)
		e = bpf_ringbuf_reserve(ring, sizeof(*e), 0);
	if (!e) {
		__sync_fetch_and_add(&count->lost, 1);
		return 0;
	}
	__sync_fetch_and_add(&count->stored, 1);
	e->time = bpf_ktime_get_ns();
	e->type = type;
	e->code = code;
	e->flags = type == EVENT_DROP ? EVENT_F_L4 | EVENT_F_EGRESS : EVENT_F_L4;
	e->proto = ctx->protocol;
	e->front_port = t->front_port;
	e->back_port = t->back_port;
	e->socket = bpf_get_socket_cookie(ctx);
	e->cgroup = bpf_get_current_cgroup_id();
	e->netns = bpf_get_netns_cookie(ctx);
	e->front = t->front;
	e->back = t->back;
	e->service = t->service;
	e->line = line;
	e->file = line ? FILE_SOCK : 0;
	e->pad = 0;
	bpf_ringbuf_submit(e, 0);
	return 0;
}

/* What a program of a control group answers. */
enum answer {
	ANSWER_NO = 0,
	ANSWER_YES = 1,
	ANSWER_CHANGED = 2, /* yes, to another destination; never returned to the kernel */
};

/* The call fails with this error where the kernel lets it, else with EPERM. */
static __always_inline int fail_call(int error)
{
	if (cfg.flags & CFG_RETVAL)
		bpf_set_retval(-error);
	return ANSWER_NO;
}

/* No connection, no datagram: counted and told as the drop of a packet would be. */
static __always_inline int refuse(struct bpf_sock_addr *ctx, const struct talk *t, __u8 reason, __u32 line)
{
	__u32 key = reason << 2 | 2; /* egress */
	struct metric *m = bpf_map_lookup_elem(&metrics_v1, &key);

	if (m)
		__sync_fetch_and_add(&m->count, 1);
	if (cfg.flags & CFG_EVENTS)
		talk_tell(ctx, t, EVENT_DROP, reason, line);
	return fail_call(ECONNREFUSED);
}
