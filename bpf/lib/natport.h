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

/* Claims a port: writes the reverse row under it. `k` is the reverse key without its dport, which is filled in; `want` is
 * tried first. Returns 0, or -1 when nothing is free. */
static __noinline int nat_claim(struct __sk_buff *skb, struct nat_key *k, const struct nat_value *v, __be16 want)
{
	__u32 span = cfg.masq_port_max - cfg.masq_port_min + 1;
	__u32 at = bpf_get_prandom_u32();
	bool v6 = !addr_is4(&k->src);

	k->dport = want;
	for (int i = 0; i < NAT_TRIES; i++) {
		if (i || !nat_in_range(want))
			k->dport = bpf_htons(cfg.masq_port_min + (at + i) % span);
		if (nat_socket_there(skb, k, v6))
			continue;
		if (!bpf_map_update_elem(&nat_v1, k, v, BPF_NOEXIST))
			return 0;
	}
	return -1;
}
