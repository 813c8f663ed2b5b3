/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Load-time constants of the node, the same for every program. The verifier prunes what they switch off. Programs read
 * them from `cfg` (lib/cfg.h). */
#pragma once

#include "addr.h"
#include "bpf.h"

enum config_flags {
	CFG_IPV4 = 1 << 0,
	CFG_IPV6 = 1 << 1,
	CFG_OVERLAY = 1 << 2,     /* pods of other nodes are reached through tunnel_ifindex */
	CFG_MASQ4 = 1 << 3,       /* pods leave the cluster under the node's address */
	CFG_MASQ6 = 1 << 4,
	CFG_EVENTS = 1 << 5,      /* drop and policy-verdict events */
	CFG_TRACE = 1 << 6,       /* trace events */
	CFG_ACCOUNTING = 1 << 7,  /* packets and bytes per connection */
	CFG_REDIRECT_PEER = 1 << 8, /* bpf_redirect_peer works (5.10+, device pair) */
	CFG_SOCK_HOST = 1 << 9,   /* services are translated at the socket for the node's own processes only */
	CFG_SERVICES = 1 << 11,   /* services are translated in packets too */
	CFG_DSR_TCP = 1 << 13,    /* backends on other nodes answer clients outside themselves: */
	CFG_DSR_UDP = 1 << 14,    /* TCP, and everything else; */
	CFG_DSR_GENEVE = 1 << 15, /* which service is said in a Geneve header, with tunnel_port, */
	CFG_DSR_IPIP = 1 << 16,   /* or plain from the packet inside; neither: in an IP option */
	CFG_REJECT = 1 << 12,     /* who asks a service without backends is told so */
	CFG_RETVAL = 1 << 10,     /* a hook of a control group may say with which error it refuses (6.1+) */
};

struct config {
	__u32 flags;            /* enum config_flags */
	__u32 tunnel_ifindex;
	__u32 tunnel_port;      /* host byte order: pods may not send to it on nodes */
	__u32 report_interval;  /* ms between trace events of one direction of a connection */
	__u16 masq_port_min;    /* host byte order, inclusive */
	__u16 masq_port_max;
	__u32 pad;
	struct addr router4;    /* the node's address in its pod range: the pods' gateway */
	struct addr router6;
	__u64 host_netns;       /* cookie of the node's network namespace, 0: the machine's first */
};
