/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* A workload's packet leaves the node: by the overlay to another node's workload, or by the route to anywhere else. */
#pragma once

#include "deliver.h"
#include "device.h"
#include "dsr.h"
#include "masq.h"
#include "tunnel.h"

enum {
	MTU_FLOOR4 = 576,
	MTU_FLOOR6 = 1280,
};

/* Bytes of the IP packet, or of each of those that the kernel will make of it; 0 if they need not be of one size (SCTP). */
static __always_inline __u32 outside_len(struct __sk_buff *skb, const struct pkt *p)
{
	if (skb->gso_size && !p->l4_header)
		return 0;
	return p->l4 - p->l3 + p->room + (skb->gso_size ? p->l4_header + skb->gso_size : p->l4_len);
}

static __always_inline int too_big(struct pkt *p, __u32 mtu)
{
	p->answer = ANSWER_TOO_BIG;
	p->answer_mtu = mtu - p->room;
	return fail(p, DROP_FRAGMENT, FILE_OUTSIDE, __LINE__);
}

static __always_inline int outside_tunnel(struct __sk_buff *skb, struct pkt *p)
{
	__u32 len = outside_len(skb, p), mtu;
	int err;

	if (!(cfg.flags & CFG_OVERLAY) || !cfg.tunnel_ifindex || addr_zero(&p->dest.peer))
		return fail(p, DROP_NO_TUNNEL, FILE_OUTSIDE, __LINE__);
	if (len > MTU_FLOOR6) {
		mtu = device_mtu(cfg.tunnel_ifindex);
		/* Also without "don't fragment": who does not want to hear of it, ignores it, and cuts by the route. */
		if (len > mtu)
			return too_big(p, mtu);
	}
	err = rewrite_hop(skb, p);
	if (!err && !addr_zero(&p->xlated))
		err = nat_as(skb, p);
	if (!err && p->room)
		err = dsr_push(skb);
	if (!err)
		err = tunnel_set(skb, p, &p->dest.peer, p->from.identity);
	if (err)
		return err;
	trace(skb, p, TRACE_TO_OVERLAY);
	return bpf_redirect(cfg.tunnel_ifindex, 0);
}

/* The path's MTU when the kernel says that the packet exceeds it. Kernels before 5.12 say neither which it is nor where
 * the route leads, unless asked without a length: then the device's, and if that is not it, the least every path must
 * carry. */
static __always_inline __u32 outside_mtu(struct __sk_buff *skb, const struct pkt *p, struct bpf_fib_lookup *f,
					 __u32 len)
{
	__u32 mtu = f->mtu_result;

	if (mtu < len)
		return mtu;
	f->tot_len = 0;
	bpf_fib_lookup(skb, f, sizeof(*f), 0);
	mtu = device_mtu(f->ifindex);
	if (mtu < len)
		return mtu;
	return pkt_v6(p) ? MTU_FLOOR6 : MTU_FLOOR4;
}

/* The route, and whether the packet fits it: fills p->via. */
static __noinline int outside_route(struct __sk_buff *skb, struct pkt *p)
{
	struct bpf_fib_lookup f = {
		.family = pkt_v6(p) ? FAMILY_IPV6 : FAMILY_IPV4,
		.ifindex = skb->ifindex,
		.l4_protocol = p->t.proto,
		.tot_len = outside_len(skb, p),
	};
	int err;

	if (pkt_v6(p)) {
		__builtin_memcpy(f.ipv6_src, p->t.src.b, sizeof(f.ipv6_src));
		__builtin_memcpy(f.ipv6_dst, p->t.dst.b, sizeof(f.ipv6_dst));
	} else {
		f.ipv4_src = addr_word(&p->t.src);
		f.ipv4_dst = addr_word(&p->t.dst);
	}
	err = bpf_fib_lookup(skb, &f, sizeof(f), 0);
	if (err == BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return too_big(p, outside_mtu(skb, p, &f, outside_len(skb, p)));
	if (err != BPF_FIB_LKUP_RET_SUCCESS && err != BPF_FIB_LKUP_RET_NO_NEIGH)
		return fail(p, DROP_FIB, FILE_OUTSIDE, __LINE__);
	p->via.ifindex = f.ifindex;
	p->via.family = f.family;
	__builtin_memcpy(p->via.addr, f.ipv6_dst, sizeof(p->via.addr)); /* a union with ipv4_dst */
	return 0;
}

static __always_inline int outside_masquerade(struct __sk_buff *skb, struct pkt *p)
{
	int err;

	if (device_addr(p, &p->xlated))
		return fail(p, DROP_NAT_NO_MAPPING, FILE_OUTSIDE, __LINE__);
	if (p->flags & PKT_F_ERROR)
		err = nat_forward_error(p);
	else
		err = nat_forward(skb, p);
	return err;
}

static __always_inline int outside_routed(struct __sk_buff *skb, struct pkt *p)
{
	struct bpf_redir_neigh n = {};
	int err = outside_route(skb, p);

	if (!err)
		err = rewrite_hop(skb, p);
	if (!err && p->flags & PKT_F_MASQ)
		err = outside_masquerade(skb, p);
	if (!err && !addr_zero(&p->xlated))
		err = nat_as(skb, p);
	if (!err && p->room)
		err = dsr_push(skb);
	if (err)
		return err;
	trace(skb, p, TRACE_TO_NETWORK);
	n.nh_family = p->via.family;
	__builtin_memcpy(n.ipv6_nh, p->via.addr, sizeof(n.ipv6_nh));
	return bpf_redirect_neigh(p->via.ifindex, &n, sizeof(n), 0);
}
