/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Admission: a packet of a connection on record passes; any other is judged, and if it passes put on record. */
#pragma once

#include "ct.h"
#include "event.h"
#include "policy.h"
#include "who.h"

/* The port that policy speaks of, seen from a packet of `t` that travels as the connection does, or against it. */
static __always_inline __u16 conn_port(const struct tuple *t, bool reply)
{
	if (proto_is_icmp(t->proto)) {
		__u8 request = icmp_echo_request(t->proto, t->type);

		return reply && request ? request : t->type;
	}
	return bpf_ntohs(reply ? t->sport : t->dport);
}

/* Asks one side's policy and tells the outcome. Returns 0 (p->flags may have gained AUDIT) or a negative reason. */
static __noinline int conn_ask(struct __sk_buff *skb, struct pkt *p, const struct question *q, __u16 ep_flags)
{
	__u16 before = p->flags;
	struct answer a = {};
	int err = policy_ask(p, q, &a);
	__u8 verdict;

	p->flags &= ~(PKT_F_INGRESS | PKT_F_EGRESS | PKT_F_AUDIT);
	p->flags |= q->dir == POLICY_EGRESS ? PKT_F_EGRESS : PKT_F_INGRESS;
	if (err)
		return err;
	p->last_rule = a.rule;
	p->rule[q->dir & 1] = a.rule;
	verdict = a.verdict & VERDICT_MASK;
	if (verdict == VERDICT_DENY) {
		if (a.verdict & VERDICT_F_AUDIT || ep_flags & EP_F_AUDIT)
			p->flags |= PKT_F_AUDIT;
		else
			err = fail(p, a.by_default ? DROP_POLICY : DROP_POLICY_DENY, FILE_CONN, __LINE__);
	} else if (verdict == VERDICT_REDIRECT) {
		err = fail(p, DROP_PROXY, FILE_CONN, __LINE__);
	} else if (verdict != VERDICT_ALLOW) {
		err = fail(p, DROP_AUTH, FILE_CONN, __LINE__);
	}
	if (cfg.flags & CFG_EVENTS && (err || !(p->flags & PKT_F_STALE)))
		event_send(skb, p, EVENT_POLICY_VERDICT, verdict, a.match);
	p->flags |= before & PKT_F_AUDIT;
	return err;
}

/* Judges a connection in its own direction, which is against the packet's if `reply`. */
static __noinline int conn_judge(struct __sk_buff *skb, struct pkt *p, __u16 port, __u8 proto, bool reply)
{
	struct who ini = reply ? p->to : p->from, res = reply ? p->from : p->to;
	__u16 seen = p->flags & (PKT_F_INGRESS | PKT_F_EGRESS), audit = 0;
	struct question q = {.proto = proto, .port = port};
	__u32 zero = 0;
	struct state *state = bpf_map_lookup_elem(&state_v1, &zero);
	int err = 0;

	if (state && state->flags & STATE_F_AUDIT)
		audit = EP_F_AUDIT;
	p->rule[POLICY_INGRESS] = 0;
	p->rule[POLICY_EGRESS] = 0;
	if (ini.set) {
		q.set = ini.set;
		q.peer = res.identity;
		q.dir = POLICY_EGRESS;
		q.sender = reply;
		err = conn_ask(skb, p, &q, ini.flags | audit);
	}
	if (!err && res.set) {
		q.set = res.set;
		q.peer = ini.identity;
		q.dir = POLICY_INGRESS;
		q.sender = !reply;
		err = conn_ask(skb, p, &q, res.flags | audit);
	}
	if (!err) {
		p->flags &= ~(PKT_F_INGRESS | PKT_F_EGRESS);
		p->flags |= seen;
	}
	return err;
}

/* Notes where the packet's ends live; the sender is end[reply]. */
static __always_inline void conn_locate(const struct pkt *p, struct ct_value *v, bool reply)
{
	union ct_end *from = &v->end[reply], *to = &v->end[!reply];

	v->flags &= ~(CT_F_HERE | CT_F_HERE << 1 | CT_F_THERE | CT_F_THERE << 1);
	v->flags |= p->origin_flags << reply;
	*from = p->origin;
	if (p->dest.ifindex) {
		v->flags |= CT_F_HERE << !reply;
		to->here.ifindex = p->dest.ifindex;
		__builtin_memcpy(to->here.mac, p->dest.mac, sizeof(to->here.mac));
		__builtin_memcpy(to->here.host_mac, p->dest.host_mac, sizeof(to->here.host_mac));
	} else if (p->dest.flags & IPC_F_TUNNEL) {
		v->flags |= CT_F_THERE << !reply;
		to->node = p->dest.peer;
	}
}

static __noinline int conn_create(struct __sk_buff *skb, struct pkt *p, const struct ct_key *k, __u64 now, bool high)
{
	struct ct_value v = {
		.epoch = p->epoch - p->passing,
		.rule = {p->rule[0], p->rule[1]},
		.src_identity = p->from.identity,
		.dst_identity = p->to.identity,
		.reported = {now, 0},
		.tcp_flags = {p->tcp_flags, 0},
	};

	if (high)
		v.flags |= CT_F_ORIG_HIGH;
	if (p->flags & PKT_F_AUDIT)
		v.flags |= CT_F_AUDIT;
	if (p->flags & PKT_F_MASQ)
		v.flags |= CT_F_NAT;
	if (p->service)
		v.flags |= CT_F_SERVICE;
	if (p->told)
		v.flags |= CT_F_TOLD;
	if (p->tcp_flags & TCP_FIN)
		v.flags |= CT_F_FIN_ORIG;
	if (p->tcp_flags & TCP_RST)
		v.flags |= CT_F_RST;
	if (cfg.flags & CFG_ACCOUNTING) {
		v.packets[0] = 1;
		v.bytes[0] = skb->len;
	}
	conn_locate(p, &v, false);
	v.expires = now + ct_lifetime(p->t.proto, v.flags);
	if (bpf_map_update_elem(&ct_v1, k, &v, BPF_ANY))
		return fail(p, DROP_CT_FULL, FILE_CONN, __LINE__);
	p->flags |= PKT_F_CT | PKT_F_NEW | PKT_F_REPORT;
	return 0;
}

/* The row was asked again and stands. */
static __always_inline void conn_renew(struct pkt *p, struct ct_value *v, bool reply)
{
	v->rule[POLICY_INGRESS] = p->rule[POLICY_INGRESS];
	v->rule[POLICY_EGRESS] = p->rule[POLICY_EGRESS];
	v->src_identity = reply ? p->to.identity : p->from.identity;
	v->dst_identity = reply ? p->from.identity : p->to.identity;
	if (p->flags & PKT_F_AUDIT)
		v->flags |= CT_F_AUDIT;
	else
		v->flags &= ~CT_F_AUDIT;
	conn_locate(p, v, reply);
	v->epoch = p->epoch - p->passing;
}

/* A live row that the packet belongs to, and whether the packet travels against it; `high` is that of its key. */
static __always_inline struct ct_value *conn_find(struct pkt *p, struct ct_key *k, __u64 now, bool high, bool *reply)
{
	struct ct_value *v = bpf_map_lookup_elem(&ct_v1, k);
	bool error = p->flags & PKT_F_ERROR;

	if ((!v || v->expires <= now) && !error && proto_is_icmp(p->t.proto) &&
	    icmp_echo_request(p->t.proto, p->t.type) != p->t.type) {
		/* An echo reply that nobody asked for is a message of its own. */
		high = ct_key_from(&p->t, k, true);
		v = bpf_map_lookup_elem(&ct_v1, k);
	}
	if (!v || v->expires <= now)
		return NULL;
	*reply = ct_reply(v, high);
	if (!error && ct_restarts(v, p, *reply)) {
		p->flags |= PKT_F_REOPENED;
		*reply = false;
		return NULL;
	}
	return v;
}

/* An ICMP error shares the fate of the flow it quotes; without one it belongs to nothing. A workload speaks of its own
 * flows only, routers on the way speak of others'. */
static __always_inline int conn_related(struct pkt *p, const struct ct_value *v)
{
	struct ipcache_value *who;

	if (!v)
		return fail(p, DROP_CT_STATE, FILE_CONN, __LINE__);
	if (addr_eq(&p->quote.src, &p->t.src))
		return 0;
	who = ipcache_find(&p->quote.src);
	/* There is no router between workloads of this node, nor inside the overlay. */
	if (p->from.set || (who && who->flags & (IPC_F_LOCAL_CIDR | IPC_F_TUNNEL)))
		return fail(p, DROP_CT_STATE, FILE_CONN, __LINE__);
	/* Should the flow be judged again, then its end, not the router. */
	who_remote(&p->from, who ? who->identity : IDENTITY_UNKNOWN);
	return 0;
}

/* A verdict on record is about who the sender was then. */
static __always_inline bool conn_speaks_for(const struct ct_value *v, const struct pkt *p, bool reply)
{
	return !p->passing && p->from.identity == (reply ? v->dst_identity : v->src_identity);
}

/* A client outside, for whom the node behind which it seems to be speaks: its address says less than the row does. */
static __always_inline bool conn_spoken_for(const struct ct_value *v, const struct pkt *p)
{
	return p->dest.flags & IPC_F_TUNNEL && identity_outside(v->src_identity);
}

/* Everything but a live row of the current epoch. `k` is the key of the packet, or of the one it quotes. */
static __noinline int conn_slow(struct __sk_buff *skb, struct pkt *p, struct ct_key *k, __u64 now, bool high)
{
	bool reply = false, error = p->flags & PKT_F_ERROR;
	struct ct_value *v = conn_find(p, k, now, high, &reply);
	const struct tuple *t = error ? &p->quote : &p->t;
	int err;

	if (error) {
		err = conn_related(p, v);
		if (err)
			return err;
	}
	if (v) {
		if (error && reply)
			p->service = v->flags & CT_F_SERVICE;
		p->flags |= PKT_F_CT | (reply ? PKT_F_REPLY : 0) | (error ? PKT_F_REPORT : PKT_F_STALE);
	} else if (p->flags & PKT_F_ANSWER) {
		return fail(p, DROP_CT_STATE, FILE_CONN, __LINE__);
	}
	if (v && reply && conn_spoken_for(v, p))
		p->to.identity = v->src_identity;
	/* What is asked of it is asked of who it becomes: so is it answered for. */
	if (v && reply && p->passing)
		p->from.identity = p->becomes;
	if (!v || v->epoch != p->epoch || (!error && !conn_speaks_for(v, p, reply))) {
		err = conn_judge(skb, p, conn_port(t, reply), t->proto, reply);
		if (err) /* the row, if any, stays, and keeps being asked */
			return err;
		if (!v)
			return conn_create(skb, p, k, now, high);
	}
	if (!error) {
		conn_renew(p, v, reply);
		ct_touch(skb, p, v, reply, now);
	}
	return 0;
}

/* Returns 0 when the packet may go on, else a negative drop reason. p->from and p->to say who its ends are. */
static __always_inline int conn_admit(struct __sk_buff *skb, struct pkt *p)
{
	__u64 now = pkt_now(p);
	struct ct_value *v;
	struct ct_key k;
	bool high, reply;

	high = ct_key_from(p->flags & PKT_F_ERROR ? &p->quote : &p->t, &k, false);
	v = bpf_map_lookup_elem(&ct_v1, &k);
	if (v && v->epoch == p->epoch && v->expires > now && !(p->flags & PKT_F_ERROR)) {
		reply = ct_reply(v, high);
		if (conn_speaks_for(v, p, reply) && !ct_restarts(v, p, reply)) {
			ct_touch(skb, p, v, reply, now);
			return 0;
		}
	}
	return conn_slow(skb, p, &k, now, high);
}

/* The row of an established packet of which there is nothing to judge and nothing to tell. */
static __always_inline struct ct_value *conn_settled(const struct pkt *p, __u64 now, bool *reply)
{
	struct ct_value *v;
	struct ct_key k;
	bool high;

	if (p->flags & (PKT_F_ERROR | PKT_F_FIRST | PKT_F_LATER))
		return NULL;
	high = ct_key_from(&p->t, &k, false);
	v = bpf_map_lookup_elem(&ct_v1, &k);
	if (!v || v->epoch != p->epoch || v->expires <= now)
		return NULL;
	*reply = ct_reply(v, high);
	return ct_restarts(v, p, *reply) || ct_due(v, p, *reply, now) ? NULL : v;
}

/* Lets a packet pass on its row's word alone, if the row knows where the packet goes. Its sender, end[reply], has been
 * found to be the row's. */
static __always_inline bool conn_pass(struct __sk_buff *skb, struct pkt *p, struct ct_value *v, __u64 now, bool reply)
{
	const union ct_end *to = &v->end[!reply];

	if (v->flags & CT_F_HERE << !reply) {
		p->dest.ifindex = to->here.ifindex;
		__builtin_memcpy(p->dest.mac, to->here.mac, sizeof(to->here.mac));
		__builtin_memcpy(p->dest.host_mac, to->here.host_mac, sizeof(to->here.host_mac));
	} else if (v->flags & CT_F_THERE << !reply) {
		p->dest.flags = IPC_F_TUNNEL;
		p->dest.peer = to->node;
	} else {
		return false;
	}
	p->from.identity = reply ? v->dst_identity : v->src_identity;
	ct_touch(skb, p, v, reply, now);
	return true;
}
