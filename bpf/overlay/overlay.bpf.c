//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* The tunnel device: what other nodes say is believed only as far as they can know it. */
#include "../lib/bpf.h"
#include "../lib/conn.h"
#include "../lib/deliver.h"
#include "../lib/demasq.h"
#include "../lib/forward.h"
#include "../lib/frag.h"
#include "../lib/quote.h"
#include "../lib/undsr.h"
#include "../lib/unsvc.h"
#include "../lib/tunnel.h"

/* A source known only by its node's pod range: a workload so new that its row has not come. */
static __always_inline int check_range(struct pkt *p)
{
	struct ipcache_key k = {.prefixlen = 32 + 128, .addr = p->t.src};
	struct ipcache_value *v = bpf_map_lookup_elem(&ipcache_v1, &k);

	if (!v || !(v->flags & IPC_F_TUNNEL) || !addr_eq(&v->tunnel, &p->tunnel))
		return fail(p, DROP_SOURCE_IP, FILE_OVERLAY, __LINE__);
	if (!identity_of_workload(p->vni) || !bpf_map_lookup_elem(&class_v1, &p->vni))
		return fail(p, DROP_IDENTITY, FILE_OVERLAY, __LINE__);
	return 0;
}

/* A service's client outside, sent on under its own address: not that of anybody in the cluster. */
static __always_inline int check_outside(struct pkt *p)
{
	struct ipcache_key k = {.prefixlen = 32 + 128, .addr = p->t.src};
	struct ipcache_value *v = bpf_map_lookup_elem(&ipcache_v1, &k);

	if (!(cfg.flags & CFG_SERVICES) || addr_multicast(&p->t.src) || addr_own_host(&p->t.src) ||
	    addr_link_local(&p->t.src) || (v && v->flags & (IPC_F_TUNNEL | IPC_F_LOCAL_CIDR | IPC_F_NODE)))
		return fail(p, DROP_SOURCE_IP, FILE_OVERLAY, __LINE__);
	who_remote(&p->from, v ? v->identity : IDENTITY_UNKNOWN);
	return 0;
}

/* An address of which its node has said that it will be somebody else, and which is still who it was. */
static __always_inline bool still_was(const struct pkt *p)
{
	__u32 *was = bpf_map_lookup_elem(&ipcache_was_v1, &p->t.src);

	return was && *was == p->vni && identity_of_workload(p->vni);
}

/* Another node's own address, not that of a workload behind it. */
static __always_inline bool node_itself(const struct ipcache_value *v)
{
	return v->identity == IDENTITY_REMOTE_NODE || v->identity >> 24 == IDENTITY_SCOPE_REMOTE;
}

/* The outer sender must be a node, and the inner one behind it, under the identity that the VNI says. */
static __always_inline int check_sender(struct pkt *p)
{
	struct ipcache_value *outer = bpf_map_lookup_elem(&ipcache_exact_v1, &p->tunnel), *inner;

	who_remote(&p->from, p->vni);
	if (!outer || !(outer->flags & IPC_F_NODE) || outer->identity == IDENTITY_HOST)
		return fail(p, DROP_UNKNOWN_SENDER, FILE_OVERLAY, __LINE__);
	inner = bpf_map_lookup_elem(&ipcache_exact_v1, &p->t.src);
	if (!inner)
		return identity_outside(p->vni) ? check_outside(p) : check_range(p);
	/* A node's own address is behind itself. */
	if (!addr_eq(&inner->tunnel, &p->tunnel) && !(inner == outer && addr_eq(&p->t.src, &p->tunnel)))
		return fail(p, DROP_SOURCE_IP, FILE_OVERLAY, __LINE__);
	if (inner->identity == p->vni) {
		p->origin_flags = CT_F_THERE;
		p->origin.node = p->tunnel;
		return 0;
	}
	if (still_was(p)) {
		p->passing = true;
		p->becomes = inner->identity;
		return 0;
	}
	/* A node speaks for a service's client outside. */
	if (identity_outside(p->vni) && node_itself(inner))
		return 0;
	/* A node says only that it is one. Which one, by its labels, is this node's own number. */
	if (p->vni != IDENTITY_REMOTE_NODE || !node_itself(inner))
		return fail(p, DROP_IDENTITY, FILE_OVERLAY, __LINE__);
	who_remote(&p->from, inner->identity);
	return 0;
}

/* One lookup for most packets: the row of an established connection knows behind which node its other end lives, and by
 * which identity. A workload's is on record only from an address's own row; other identities may be a whole range's. */
static __always_inline bool established(struct __sk_buff *skb, struct pkt *p)
{
	__u64 now = pkt_now(p);
	struct ct_value *v;
	bool reply;

	v = conn_settled(p, now, &reply);
	if (!v || !(v->flags & CT_F_THERE << reply) || !(v->flags & CT_F_HERE << !reply))
		return false;
	if (!identity_of_workload(p->vni) || !addr_eq(&v->end[reply].node, &p->tunnel))
		return false;
	if (p->vni != (reply ? v->dst_identity : v->src_identity))
		return false;
	return conn_pass(skb, p, v, now, reply);
}

static __always_inline int admit_from_overlay(struct __sk_buff *skb, struct pkt *p)
{
	int err = check_sender(p);

	if (!err && frag_is(p))
		err = frag_follow(p);
	if (!err && p->flags & PKT_F_ERROR)
		err = quote_parse(skb, p);
	return err;
}

/* To the node: its own packet, or the answer to a service's client outside, for whom the node spoke. Returns 1 for the former. */
static __always_inline int to_node(struct __sk_buff *skb, struct pkt *p)
{
	struct ipcache_value *own = bpf_map_lookup_elem(&ipcache_exact_v1, &p->t.dst);
	int err = 0;

	if (!own || own->identity != IDENTITY_HOST)
		return fail(p, DROP_UNROUTABLE, FILE_OVERLAY, __LINE__);
	who_remote(&p->to, IDENTITY_HOST);
	if (cfg.flags & CFG_SERVICES)
		err = nat_reverse(skb, p, NAT_ANSWERS_SERVED);
	if (err <= 0)
		return err ? err : 1;
	p->flags |= PKT_F_ANSWER;
	return forward_find(p);
}

static __always_inline int handle_from_overlay(struct __sk_buff *skb, struct pkt *p)
{
	struct endpoint *dst;
	int err = tunnel_get(skb, p);

	if (!err)
		err = parse(skb, p);
	if (err)
		return err;
	if (!established(skb, p)) {
		err = admit_from_overlay(skb, p);
		if (err)
			return err;
		dst = endpoint_find(&p->t.dst);
		if (dst)
			dest_local(p, dst);
		else
			err = to_node(skb, p);
		if (dst && identity_outside(p->vni) && !p->plain_header)
			err = dsr_pop(skb);
		if (err > 0)
			return deliver_stack(skb, p);
		if (!err)
			err = conn_admit(skb, p);
	}
	if (!err && svc_answers(p))
		err = svc_from_backend(p);
	if (err)
		return err;
	return p->dest.ifindex ? deliver_local(skb, p) : forward(skb, p);
}

SEC("tc")
int from_overlay(struct __sk_buff *skb)
{
	struct pkt *p = pkt_new(PKT_F_INGRESS);
	int verdict;

	if (!p)
		return TC_ACT_SHOT;
	verdict = handle_from_overlay(skb, p);
	return verdict < 0 ? drop(skb, p, verdict) : verdict;
}

/* The node's stack sends to another node's workload. Only its own packets: the other side would refuse others. */
static __always_inline int send_to_overlay(struct __sk_buff *skb, struct pkt *p)
{
	struct ipcache_value *src, *dst;
	struct addr peer;
	int err;

	src = bpf_map_lookup_elem(&ipcache_exact_v1, &p->t.src);
	if (!src || src->identity != IDENTITY_HOST || forwarded(skb))
		return fail(p, DROP_SOURCE_IP, FILE_OVERLAY, __LINE__);
	who_remote(&p->from, IDENTITY_HOST);
	dst = ipcache_find(&p->t.dst);
	if (!dst || !(dst->flags & IPC_F_TUNNEL) || addr_zero(&dst->tunnel))
		return fail(p, DROP_NO_TUNNEL, FILE_OVERLAY, __LINE__);
	who_remote(&p->to, dst->identity);
	peer = dst->tunnel;
	err = tunnel_set(skb, p, &peer, IDENTITY_REMOTE_NODE);
	return err;
}

static __always_inline int handle_to_overlay(struct __sk_buff *skb, struct pkt *p)
{
	int err = parse(skb, p);

	if (err)
		return err;
	if (addr_multicast(&p->t.dst))
		return drop_chatter(skb, p);
	err = send_to_overlay(skb, p);
	if (err)
		return err;
	trace(skb, p, TRACE_TO_OVERLAY);
	return TC_ACT_OK;
}

SEC("tc")
int to_overlay(struct __sk_buff *skb)
{
	struct pkt *p;
	int verdict;

	if ((skb->mark & MARK_MASK) == MARK_OVERLAY)
		return TC_ACT_OK;
	p = pkt_new(0);
	if (!p)
		return TC_ACT_SHOT;
	verdict = handle_to_overlay(skb, p);
	return verdict < 0 ? drop(skb, p, verdict) : verdict;
}

char _license[] SEC("license") = "Dual BSD/GPL";
