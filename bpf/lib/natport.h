/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Finding a port (ICMP echo: an id) to leave under. Only ports of the configured range are used, also when the workload's
 * own port could be kept: outside it a workload could sit on ports that the node's own connections will want. */
#pragma once

#include "nat.h"

enum {
	NAT_TRIES = 32,
};

/* Whether a socket of this node would take what the peer sends to that port. `k` is the reverse key. */
static __always_inline bool nat_socket_there(struct __sk_buff *skb, const struct nat_key *k, bool v6)
{
	struct bpf_sock_tuple t = {};
	__u32 size = v6 ? sizeof(t.ipv6) : sizeof(t.ipv4);
	struct bpf_sock *sk;

	if (v6) {
		__builtin_memcpy(t.ipv6.saddr, k->src.b, sizeof(t.ipv6.saddr));
		__builtin_memcpy(t.ipv6.daddr, k->dst.b, sizeof(t.ipv6.daddr));
		t.ipv6.sport = k->sport;
		t.ipv6.dport = k->dport;
	} else {
		t.ipv4.saddr = addr_word(&k->src);
		t.ipv4.daddr = addr_word(&k->dst);
		t.ipv4.sport = k->sport;
		t.ipv4.dport = k->dport;
	}
	if (k->proto == PROTO_TCP)
		sk = bpf_skc_lookup_tcp(skb, &t, size, BPF_F_CURRENT_NETNS, 0);
	else if (k->proto == PROTO_UDP)
		sk = bpf_sk_lookup_udp(skb, &t, size, BPF_F_CURRENT_NETNS, 0);
	else
		return false;
	if (!sk)
		return false;
	bpf_sk_release(sk);
	return true;
}

/* Claims a port to leave under: writes the reverse row under it. `k` is the reverse key; its dport is tried first, and is
 * what was found. Returns 0, or -1 when nothing is free. */
static __noinline int nat_claim(struct __sk_buff *skb, struct nat_key *k, const struct nat_value *v)
{
	__u32 span = cfg.masq_port_max - cfg.masq_port_min + 1;
	__u32 at = bpf_get_prandom_u32();
	bool v6 = !addr_is4(&k->src), kept = nat_in_range(k->dport);

	for (int i = 0; i < NAT_TRIES; i++) {
		if (i || !kept)
			k->dport = bpf_htons(cfg.masq_port_min + (at + i) % span);
		if (nat_socket_there(skb, k, v6))
			continue;
		if (!bpf_map_update_elem(&nat_v2, k, v, BPF_NOEXIST))
			return 0;
	}
	return -1;
}

/* Makes a pair under a port of the node's. `out` is what packets of `k` become; the port they leave under is what it says,
 * or one that is free, which it says then. Returns 0, or -1. */
static __noinline int nat_lease(struct __sk_buff *skb, struct nat_key *k, struct nat_value *out)
{
	struct nat_value back;
	struct nat_key r;

	out->created = bpf_ktime_get_ns();
	nat_partner(k, out, &r);
	nat_back(k, out->created, &back);
	if (nat_claim(skb, &r, &back))
		return -1;
	out->sport = r.dport;
	if (bpf_map_update_elem(&nat_v2, k, out, BPF_ANY)) {
		bpf_map_delete_elem(&nat_v2, &r);
		return -1;
	}
	return 0;
}
