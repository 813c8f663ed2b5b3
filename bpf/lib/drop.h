/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* The two ends of a packet that does not go on. */
#pragma once

#include "event.h"

/* `err` is what fail() returned. */
static __noinline int drop(struct __sk_buff *skb, struct pkt *p, int err)
{
	__u32 reason = (__u8)-err;

	metric_count(skb, p, reason);
	if (cfg.flags & CFG_EVENTS)
		event_send(skb, p, EVENT_DROP, reason, 0);
	return TC_ACT_SHOT;
}

/* For what every machine says by itself when an interface comes up (MLD, router solicitations, duplicate address
 * detection): counted, but not told, or each new workload would look like an attack. */
static __always_inline int drop_chatter(struct __sk_buff *skb, struct pkt *p)
{
	metric_count(skb, p, DROP_MULTICAST);
	return TC_ACT_SHOT;
}
