//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* The node's devices to the outside. What is neither for a workload nor for a service is the node's own and passes untouched, understood
 * or not. */
#include "../lib/bpf.h"
#include "../lib/conn.h"
#include "../lib/deliver.h"
#include "../lib/demasq.h"
#include "../lib/frag.h"
#include "../lib/icmp.h"
#include "../lib/forward.h"
#include "../lib/quote.h"
#include "../lib/svc.h"
#include "../lib/unwrap.h"
#include "../lib/unsvc.h"

enum {
	NOT_OURS = 1,
};

/* Who claims to send from outside: not this node, nor anybody who lives on it or behind the overlay. */
static __always_inline int check_sender(struct pkt *p)
{
	struct ipcache_value *v = ipcache_find(&p->t.src);

	if (addr_multicast(&p->t.src) || addr_own_host(&p->t.src) || endpoint_find(&p->t.src))
		return fail(p, DROP_SOURCE_IP, FILE_HOST, __LINE__);
	if (v && (v->identity == IDENTITY_HOST || v->flags & (IPC_F_LOCAL_CIDR | IPC_F_TUNNEL)))
		return fail(p, DROP_SOURCE_IP, FILE_HOST, __LINE__);
	who_remote(&p->from, v ? v->identity : IDENTITY_UNKNOWN);
	return 0;
}

/* To the node's loopback. Not every node's kernel drops it: kube-proxy, for one, sets route_localnet (CVE-2020-8558). The
 * zero address is that of what is no IP packet. */
static __always_inline bool to_loopback(const struct pkt *p)
{
	return addr_own_host(&p->t.dst) && !addr_zero(&p->t.dst);
}

/* Ports of fragments and quoted packets, before the address changes. */
static __always_inline int look_inside(struct __sk_buff *skb, struct pkt *p)
{
	int err = 0;

	if (frag_is(p))
		err = frag_follow(p);
	if (!err && p->flags & PKT_F_ERROR)
		err = quote_parse(skb, p);
	return err;
}

/* To a workload's own address: native routing, or a service's client by way of another node. */
static __always_inline int routed_to_pod(struct __sk_buff *skb, struct pkt *p)
{
	int err = wrapped(p) ? unwrap(skb) : 0;

	if (!err)
		err = check_sender(p);
	if (!err)
		err = look_inside(skb, p);
	if (err || !(cfg.flags & CFG_SERVICES))
		return err;
	if (p->told)
		return unwrapped(skb);
	return p->plain_header ? 0 : dsr_pop(skb);
}

/* To the node: perhaps the answer to what a workload, or a service's client, sent under the node's address. */
static __always_inline int answer_to_node(struct __sk_buff *skb, struct pkt *p)
{
	int err;

	if (!(cfg.flags & (CFG_SERVICES | (pkt_v6(p) ? CFG_MASQ6 : CFG_MASQ4))))
		return NOT_OURS;
	/* Only what could be: the node's own fragments do not crowd the table of first fragments. */
	if (p->flags & PKT_F_FIRST && proto_has_ports(p->t.proto) && !nat_in_range(p->t.dport))
		return NOT_OURS;
	if (look_inside(skb, p))
		return NOT_OURS; /* whatever it is, no row of ours speaks of it */
	err = nat_reverse(skb, p, NAT_ANSWERS_ALL);
	if (err <= 0)
		return err ? err : NOT_OURS;
	/* A row that outlived its connection opens no way in. */
	p->flags |= PKT_F_ANSWER;
	return check_sender(p);
}

/* Workloads are on Ethernet, also towards a device that is not. */
static __noinline int add_link_header(struct __sk_buff *skb, struct pkt *p)
{
	__be16 proto = skb->protocol;

	if (bpf_skb_change_head(skb, ETH_HLEN, 0) ||
	    bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &proto, sizeof(proto), 0))
		return fail(p, DROP_WRITE, FILE_HOST, __LINE__);
	p->l3 = L3_OFF;
	return 0;
}

/* To a service: where to is decided by its backends. */
static __always_inline int to_service(struct __sk_buff *skb, struct pkt *p)
{
	int err;

	if (!(cfg.flags & CFG_SERVICES) || !bpf_map_lookup_elem(&lb_address_v1, &p->t.dst))
		return NOT_OURS;
	/* What is not understood of the node's own fragments and errors is the node's to understand. */
	if (look_inside(skb, p))
		return NOT_OURS;
	err = check_sender(p);
	if (err) /* who lies leaves no row behind */
		return svc_wants(&p->t) ? err : NOT_OURS;
	err = svc_to_backend(skb);
	return err > 0 ? 0 : err ? err : NOT_OURS;
}

static __always_inline int deliver_from_outside(struct __sk_buff *skb, struct pkt *p)
{
	int err;

	if (p->hop <= 1)
		return fail(p, DROP_TTL, FILE_HOST, __LINE__);
	err = rewrite_hop(skb, p);
	if (!err && !p->l3)
		err = add_link_header(skb, p);
	return err ? err : deliver_local(skb, p);
}

static __always_inline int parse_outside(struct __sk_buff *skb, struct pkt *p)
{
	__u32 ifindex = skb->ifindex;
	struct device *d = bpf_map_lookup_elem(&devices_v1, &ifindex);

	if (d && d->flags & DEV_F_L3)
		p->l3 = 0;
	return parse_at(skb, p, p->l3 ? L3_OFF : 0);
}

/* What is for the node by its address, until it turns out for whom it is. */
static __always_inline int find_receiver(struct __sk_buff *skb, struct pkt *p)
{
	int err = answer_to_node(skb, p);

	return err == NOT_OURS ? to_service(skb, p) : err;
}

static __always_inline int handle_from_netdev(struct __sk_buff *skb, struct pkt *p)
{
	int err = parse_outside(skb, p);
	struct endpoint *dst = endpoint_find(&p->t.dst);

	if (dst) {
		if (!err)
			err = routed_to_pod(skb, p);
	} else {
		if (to_loopback(p))
			return fail(p, DROP_INVALID, FILE_HOST, __LINE__);
		if (err)
			return TC_ACT_OK;
		err = find_receiver(skb, p);
		if (err == NOT_OURS)
			return TC_ACT_OK;
		dst = endpoint_find(&p->t.dst);
	}
	if (dst)
		dest_local(p, dst);
	else if (!err)
		err = forward_find(p);
	if (!err)
		err = conn_admit(skb, p);
	if (!err && svc_answers(p))
		err = svc_from_backend(p);
	if (err)
		return err;
	return p->dest.ifindex ? deliver_from_outside(skb, p) : forward(skb, p);
}

SEC("tc")
int from_netdev(struct __sk_buff *skb)
{
	struct pkt *p = pkt_new(PKT_F_INGRESS);
	int verdict;

	if (!p)
		return TC_ACT_SHOT;
	verdict = handle_from_netdev(skb, p);
	return verdict < 0 ? refuse(skb, p, verdict) : verdict;
}

/* What the node's own stack sends, where it is a service's backend: its answers leave under the service's address. All else
 * is the node's own. */
static __always_inline int handle_to_netdev(struct __sk_buff *skb, struct pkt *p)
{
	int err = parse_outside(skb, p);

	if (!err)
		err = look_inside(skb, p);
	if (err || !svc_served(p))
		return TC_ACT_OK;
	who_remote(&p->from, IDENTITY_HOST);
	dest_remote(p, ipcache_find(&p->t.dst));
	p->flags |= PKT_F_ANSWER;
	err = conn_admit(skb, p);
	if (!err)
		err = nat_as(skb, p);
	if (err)
		return err;
	trace(skb, p, TRACE_TO_NETWORK);
	return TC_ACT_OK;
}

SEC("tc")
int to_netdev(struct __sk_buff *skb)
{
	struct pkt *p;
	int verdict;

	if (!(cfg.flags & CFG_SERVICES) || forwarded(skb))
		return TC_ACT_OK;
	p = pkt_new(0);
	if (!p)
		return TC_ACT_OK;
	verdict = handle_to_netdev(skb, p);
	return verdict < 0 ? drop(skb, p, verdict) : verdict;
}

char _license[] SEC("license") = "Dual BSD/GPL";
