//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* The host side of a workload's device pair. */
#include "../lib/bpf.h"
#include "../lib/arp.h"
#include "../lib/conn.h"
#include "../lib/demasq.h"
#include "../lib/frag.h"
#include "../lib/icmp.h"
#include "../lib/ndp.h"
#include "../lib/outside.h"
#include "../lib/quote.h"
#include "../lib/svc.h"
#include "../lib/unsvc.h"

enum {
	TURNED = 1,
};

/* Who may send from here: the address must be this device's, and the frame's MAC its owner's. */
static __always_inline int check_source(struct __sk_buff *skb, struct pkt *p)
{
	struct endpoint *ep = endpoint_find(&p->t.src);
	struct ethhdr *eth = (void *)(long)skb->data;

	if (!ep || ep->ifindex != skb->ifindex)
		return fail(p, DROP_SOURCE_IP, FILE_POD, __LINE__);
	who_local(&p->from, ep);
	if ((void *)(eth + 1) > (void *)(long)skb->data_end || !mac_eq(eth->h_source, ep->mac))
		return fail(p, DROP_SOURCE_MAC, FILE_POD, __LINE__);
	p->origin_flags = CT_F_HERE;
	p->origin.here.ifindex = ep->ifindex;
	__builtin_memcpy(p->origin.here.mac, ep->mac, sizeof(p->origin.here.mac));
	__builtin_memcpy(p->origin.here.host_mac, ep->host_mac, sizeof(p->origin.here.host_mac));
	return 0;
}

/* One lookup for most packets: the row of an established connection knows its ends. What does not fit it goes the long
 * way, which says why. */
static __always_inline bool established(struct __sk_buff *skb, struct pkt *p)
{
	struct ethhdr *eth = (void *)(long)skb->data;
	__u64 now = pkt_now(p);
	struct ct_value *v;
	bool reply;

	v = conn_settled(p, now, &reply);
	if (!v || !(v->flags & CT_F_HERE << reply) || v->end[reply].here.ifindex != skb->ifindex)
		return false;
	if ((void *)(eth + 1) > (void *)(long)skb->data_end || !mac_eq(eth->h_source, v->end[reply].here.mac))
		return false;
	return conn_pass(skb, p, v, now, reply);
}

static __always_inline int check_destination(struct pkt *p)
{
	if (addr_multicast(&p->t.dst))
		return fail(p, DROP_MULTICAST, FILE_POD, __LINE__);
	if (addr_own_host(&p->t.dst) || addr_eq(&p->t.src, &p->t.dst))
		return fail(p, DROP_INVALID, FILE_POD, __LINE__);
	return 0;
}

/* A workload that reaches a node's tunnel port could write any identity it likes. Under its own address no node would
 * believe it; under this node's, every one that has an address which is not on record here. */
static __always_inline bool forges_overlay(const struct pkt *p)
{
	return p->t.proto == PROTO_UDP && cfg.tunnel_port && p->t.dport == bpf_htons(cfg.tunnel_port) &&
	       (p->dest.flags & IPC_F_NODE || p->to.identity == IDENTITY_HOST || p->flags & PKT_F_MASQ);
}

/* What leaves the cluster under the node's address. Replies do not: that is for conn_admit to find out. A workload that keeps its
 * own address keeps it towards who is outside alone: a node behind the overlay would answer that by the overlay. */
static __always_inline bool masquerades(const struct pkt *p)
{
	if (!(cfg.flags & (pkt_v6(p) ? CFG_MASQ6 : CFG_MASQ4)) || p->dest.flags & (IPC_F_NO_MASQ | IPC_F_TUNNEL))
		return false;
	return !(p->from.flags & EP_F_NO_MASQ) || p->dest.flags & IPC_F_NODE;
}

static __always_inline int out_of_hops(struct pkt *p)
{
	p->answer = ANSWER_TIME_EXCEEDED;
	return fail(p, DROP_TTL, FILE_POD, __LINE__);
}

/* From a workload to anything that is not a workload of this node. */
static __always_inline int send_away(struct __sk_buff *skb, struct pkt *p)
{
	if (p->to.identity == IDENTITY_HOST)
		return deliver_stack(skb, p);
	if (p->hop <= 1)
		return out_of_hops(p);
	if (p->dest.flags & IPC_F_TUNNEL)
		return outside_tunnel(skb, p);
	/* An error too: one that travels against its connection is about a packet that came to the workload's own address. */
	if (p->flags & PKT_F_REPLY)
		p->flags &= ~PKT_F_MASQ;
	return outside_routed(skb, p);
}

/* Where nobody can be is found out before judging: a verdict on record would outlive the emptiness of an address. */
static __always_inline int find_destination(struct pkt *p)
{
	struct endpoint *ep = endpoint_find(&p->t.dst);

	if (ep) {
		dest_local(p, ep);
		return 0;
	}
	dest_remote(p, ipcache_find(&p->t.dst));
	if (p->to.identity == IDENTITY_HOST)
		return 0;
	if (p->dest.flags & IPC_F_LOCAL_CIDR)
		return fail(p, DROP_UNROUTABLE, FILE_POD, __LINE__);
	if (addr_link_local(&p->t.dst))
		return fail(p, DROP_L3_TARGET, FILE_POD, __LINE__);
	if (masquerades(p))
		p->flags |= PKT_F_MASQ;
	return 0;
}

/* A service's address gives way to a backend's. Sockets did so already, where the node reaches them. */
static __always_inline int find_backend(struct __sk_buff *skb, struct pkt *p)
{
	int err = 0;

	if (!bpf_map_lookup_elem(&lb_address_v1, &p->t.dst))
		return 0;
	if (p->flags & PKT_F_ERROR)
		err = quote_parse(skb, p);
	return err ? err : svc_to_backend(skb);
}

/* A workload that reached itself by way of a service: the packet comes to it from its gateway, and its answer goes there. What
 * is from oneself to oneself no policy forbids, and no connection is on record. */
static __always_inline int turn_round(struct __sk_buff *skb, struct pkt *p)
{
	struct endpoint *ep;
	int err = 0;

	if (addr_zero(&p->xlated))
		err = nat_reverse(skb, p, NAT_ANSWERS_SERVED);
	if (err < 0 || addr_zero(&p->xlated))
		return err;
	ep = endpoint_find(&p->t.dst);
	if (!ep || !addr_eq(&p->t.src, &p->t.dst))
		return fail(p, DROP_SOURCE_IP, FILE_POD, __LINE__);
	dest_local(p, ep);
	return TURNED;
}

/* Returns 0, TURNED when the packet needs nothing but delivery, or a negative drop reason. */
static __always_inline int translate(struct __sk_buff *skb, struct pkt *p)
{
	struct addr gateway;
	int err;

	if (!(cfg.flags & CFG_SERVICES))
		return 0;
	err = find_backend(skb, p);
	if (err < 0)
		return err;
	router(&gateway, pkt_v6(p));
	return !addr_zero(&p->xlated) || addr_eq(&p->t.dst, &gateway) ? turn_round(skb, p) : 0;
}

static __always_inline int admit_from_pod(struct __sk_buff *skb, struct pkt *p)
{
	int err = check_source(skb, p);

	if (!err)
		err = check_destination(p);
	if (!err && frag_is(p))
		err = frag_follow(p);
	if (!err)
		err = translate(skb, p);
	if (!err)
		err = find_destination(p);
	if (err)
		return err;
	if (forges_overlay(p))
		return fail(p, DROP_ENCAPSULATION, FILE_POD, __LINE__);
	if (p->flags & PKT_F_ERROR && !p->quote_l3)
		err = quote_parse(skb, p);
	return err ? err : conn_admit(skb, p);
}

static __always_inline int handle_from_pod(struct __sk_buff *skb, struct pkt *p)
{
	int err;

	if (skb->protocol == bpf_htons(ETH_P_ARP))
		return arp_from_pod(skb, p);
	err = parse(skb, p);
	if (err)
		return err;
	if (ndp_is(p))
		return ndp_from_pod(skb, p);
	if (mld_is(p))
		return drop_chatter(skb, p);
	if (!established(skb, p))
		err = admit_from_pod(skb, p);
	if (!err && svc_answers(p))
		err = svc_from_backend(p);
	if (err < 0)
		return err;
	return p->dest.ifindex ? deliver_local(skb, p) : send_away(skb, p);
}

SEC("tc")
int from_pod(struct __sk_buff *skb)
{
	struct pkt *p = pkt_new(PKT_F_EGRESS);
	int verdict;

	if (!p)
		return TC_ACT_SHOT;
	verdict = handle_from_pod(skb, p);
	return verdict < 0 ? refuse(skb, p, verdict) : verdict;
}

/* Who the node's stack speaks for: itself, or somebody whose packet it forwards. */
static __always_inline int identify_sender(struct __sk_buff *skb, struct pkt *p)
{
	struct ipcache_value *v = ipcache_find(&p->t.src);

	/* Workloads, of this node or behind the overlay, are never forwarded by its stack. */
	if (endpoint_find(&p->t.src) ||
	    (v && v->flags & (IPC_F_LOCAL_CIDR | IPC_F_TUNNEL) && v->identity != IDENTITY_HOST))
		return fail(p, DROP_SOURCE_IP, FILE_POD, __LINE__);
	if (v && v->identity == IDENTITY_HOST && forwarded(skb))
		return fail(p, DROP_SOURCE_IP, FILE_POD, __LINE__);
	who_remote(&p->from, v ? v->identity : IDENTITY_UNKNOWN);
	return 0;
}

/* Neighbour discovery between the node and the workload; with 255 hops nobody else can have sent it. */
static __always_inline bool node_neighbour(const struct pkt *p)
{
	return ndp_is(p) && p->hop == NDP_HOPS && (p->t.type == NDP_SOLICITATION || p->t.type == NDP_ADVERTISEMENT);
}

static __always_inline int admit_to_pod(struct __sk_buff *skb, struct pkt *p)
{
	struct endpoint *dst = endpoint_find(&p->t.dst);
	int err;

	if (!dst || dst->ifindex != skb->ifindex)
		return fail(p, DROP_UNROUTABLE, FILE_POD, __LINE__);
	who_local(&p->to, dst);
	err = identify_sender(skb, p);
	if (!err && frag_is(p))
		err = frag_follow(p);
	if (!err && p->flags & PKT_F_ERROR)
		err = quote_parse(skb, p);
	if (err)
		return err;
	return conn_admit(skb, p);
}

static __always_inline int handle_to_pod(struct __sk_buff *skb, struct pkt *p)
{
	int err = parse(skb, p);

	if (err)
		return err;
	if (node_neighbour(p))
		return TC_ACT_OK;
	/* The node's own chatter (MLD, mDNS) is not for workloads. */
	if (addr_multicast(&p->t.dst))
		return drop_chatter(skb, p);
	err = admit_to_pod(skb, p);
	if (!err && svc_answers(p))
		err = svc_from_backend(p);
	if (!err && !addr_zero(&p->xlated))
		err = nat_as(skb, p);
	if (err)
		return err;
	trace(skb, p, TRACE_TO_ENDPOINT);
	return TC_ACT_OK;
}

SEC("tc")
int to_pod(struct __sk_buff *skb)
{
	struct pkt *p;
	int verdict;

	if ((skb->mark & MARK_MASK) == MARK_DELIVER || skb->protocol == bpf_htons(ETH_P_ARP))
		return TC_ACT_OK;
	p = pkt_new(PKT_F_INGRESS);
	if (!p)
		return TC_ACT_SHOT;
	verdict = handle_to_pod(skb, p);
	return verdict < 0 ? drop(skb, p, verdict) : verdict;
}

char _license[] SEC("license") = "Dual BSD/GPL";
