/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Connection rows: their key, their lifetime, what a packet changes in them. */
#pragma once

#include "../maps/ct.h"
#include "cfg.h"
#include "parse.h"

#define NSEC 1000000000ULL

enum tcp_flag {
	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_ACK = 0x10,
};

/* Asks for a connection. */
static __always_inline bool ct_opens(const struct pkt *p)
{
	return (p->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN;
}

/* Writes the key of a flow; the same for both directions. With `generic` an ICMP echo is keyed like any other ICMP
 * message, by type and code: that is for replies nobody asked for. Returns whether the sender is addr[1]. */
static __always_inline bool ct_key_from(const struct tuple *t, struct ct_key *k, bool generic)
{
	bool high = addr_less(&t->dst, &t->src), asker = high;
	__be16 sport = t->sport, dport = t->dport;

	if (proto_is_icmp(t->proto)) {
		__u8 request = icmp_echo_request(t->proto, t->type);

		if (!request || generic) {
			sport = bpf_htons(t->type << 8 | t->code);
			dport = 0;
		} else if (t->type == request) {
			dport = bpf_htons(request);
		} else {
			dport = sport;
			sport = bpf_htons(request);
			asker = !high;
		}
	} else {
		/* A node may reach a backend in its own stack by way of this one. */
		if (!high && addr_eq(&t->dst, &t->src))
			high = bpf_ntohs(dport) < bpf_ntohs(sport);
		asker = false;
	}
	if (high) {
		k->addr[0] = t->dst;
		k->addr[1] = t->src;
		k->port[0] = dport;
		k->port[1] = sport;
	} else {
		k->addr[0] = t->src;
		k->addr[1] = t->dst;
		k->port[0] = sport;
		k->port[1] = dport;
	}
	k->proto = t->proto;
	k->asker = asker;
	k->pad[0] = 0;
	k->pad[1] = 0;
	return high;
}

static __always_inline bool ct_reply(const struct ct_value *v, bool high)
{
	return high != !!(v->flags & CT_F_ORIG_HIGH);
}

static __always_inline bool ct_closing(__u16 flags)
{
	return flags & CT_F_RST || (flags & (CT_F_FIN_ORIG | CT_F_FIN_REPLY)) == (CT_F_FIN_ORIG | CT_F_FIN_REPLY);
}

static __always_inline __u64 ct_lifetime(__u8 proto, __u16 flags)
{
	if (proto != PROTO_TCP)
		return 60 * NSEC;
	if (ct_closing(flags))
		return 10 * NSEC;
	return flags & CT_F_SEEN_REPLY ? 6 * 3600 * NSEC : 60 * NSEC;
}

/* A SYN that cannot belong to the connection on record: from its other end, or after it has closed. */
static __always_inline bool ct_restarts(const struct ct_value *v, const struct pkt *p, bool reply)
{
	return ct_opens(p) && (reply || ct_closing(v->flags));
}

/* Whether a trace event of the packet is due: a TCP flag new in its direction, or none told for the interval. */
static __always_inline bool ct_due(const struct ct_value *v, const struct pkt *p, bool reply, __u64 now)
{
	if (!(cfg.flags & CFG_TRACE))
		return false;
	/* Signed: another CPU's clock may be ahead. */
	return p->tcp_flags & ~v->tcp_flags[reply] ||
	       (__s64)(now - v->reported[reply]) > (__s64)(cfg.report_interval * 1000000ULL);
}

/* Moves the end of a row's life, by more than a second or not at all. */
static __always_inline void ct_prolong(struct ct_value *v, __u64 expires)
{
	if (expires - v->expires > NSEC && expires > v->expires)
		v->expires = expires;
}

static __always_inline void ct_count(struct ct_value *v, bool reply, __u32 bytes)
{
	if (cfg.flags & CFG_ACCOUNTING) {
		__sync_fetch_and_add(&v->packets[reply], 1);
		__sync_fetch_and_add(&v->bytes[reply], bytes);
	}
}

/* The row is written only when something changes or its expiry moves by more than a second. A write lost to
 * another CPU's costs an event too many or a flag that the next packet sets. */
static __always_inline void ct_touch(struct __sk_buff *skb, struct pkt *p, struct ct_value *v, bool reply, __u64 now)
{
	__u16 flags = v->flags;
	__u64 expires;

	p->flags |= PKT_F_CT;
	if (reply) {
		p->flags |= PKT_F_REPLY;
		p->service = flags & CT_F_SERVICE;
		flags |= CT_F_SEEN_REPLY;
	} else if (p->service) {
		flags |= CT_F_SERVICE | (p->told ? CT_F_TOLD : 0);
	} else if (!(flags & CT_F_TOLD) || p->tcp_flags & TCP_SYN) {
		flags &= ~(CT_F_SERVICE | CT_F_TOLD);
	}
	/* Its answers do not come by here. */
	if (p->one_way && (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_ACK)
		flags |= CT_F_SEEN_REPLY;
	if (p->tcp_flags & (TCP_FIN | TCP_RST)) {
		if (p->tcp_flags & TCP_RST)
			flags |= CT_F_RST;
		else
			flags |= reply ? CT_F_FIN_REPLY : CT_F_FIN_ORIG;
	}
	expires = now + ct_lifetime(p->t.proto, flags);
	if (flags != v->flags) {
		v->flags = flags;
		v->expires = expires;
	} else {
		ct_prolong(v, expires);
	}
	ct_count(v, reply, skb->len);
	if (ct_due(v, p, reply, now)) {
		v->tcp_flags[reply] |= p->tcp_flags;
		v->reported[reply] = now;
		p->flags |= PKT_F_REPORT;
	}
}
