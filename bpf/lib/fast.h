/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* A client's flow by way of a service to another node, and its answers, sent on before the kernel makes packets of its own of them.
 * Nothing is decided here: a packet goes this way if from_netdev, by the rows that there are, or were a moment ago, would do the same
 * to it and tell nobody. Every other one passes, untouched, and is from_netdev's.
 *
 * What from_netdev asks of the ends of each packet, the epoch of the connection's row stands for: it ends when an address becomes
 * somebody else's, or lives elsewhere. */
#pragma once

#include "../maps/xdp.h"
#include "ct.h"
#include "frontend.h"
#include "pair.h"
#include "who.h"

enum {
	FAST_ENDS = CT_F_HERE | CT_F_HERE << 1 | CT_F_THERE | CT_F_THERE << 1,
	FAST_ALONE = TCP_FIN | TCP_SYN | TCP_RST, /* what changes a connection is told */
	IP_PLAIN = 0x45, /* version and length of an IPv4 header without options */
	IP_PIECE = 0x3fff, /* what a fragment has in frag_off */
};

/* What the rows have said of a flow's packets: they need be asked no more than ten times a second, and when the epoch ends. Where the
 * kernel gives the row to another flow, or another CPU writes to it, while it is read, `check` is wrong. */
struct fast_flow {
	struct nat_value to;
	__u64 until; /* ns */
	__u32 epoch;
	__u32 ifindex; /* by which they leave */
	__u8 dmac[6];
	__u16 most; /* bytes of the longest packet that was seen to fit */
	__u8 smac[6];
	__u8 tcp_flags; /* of which has been told, like those of the connection's row */
	__u8 pad;
	__u64 check;
};

enum {
	FAST_GOOD_FOR = 100000000, /* ns */
	FAST_WORDS = offsetof(struct fast_flow, check) / sizeof(__u64),
};

/* Not shared, for it holds nothing that is not elsewhere: it comes and goes with the program. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct nat_key); /* of the packet, dir always NAT_FORWARD */
	__type(value, struct fast_flow);
	__uint(max_entries, 32768);
} fast_flows SEC(".maps");

static __always_inline __u64 fast_check(const struct nat_key *k, const struct fast_flow *f)
{
	const __u64 *key = (const __u64 *)k, *word = (const __u64 *)f;
	__u64 sum = 0;

	for (int i = 0; i < sizeof(*k) / sizeof(__u64); i++)
		sum = (sum << 7 | sum >> 57) ^ key[i];
	for (int i = 0; i < FAST_WORDS; i++)
		sum = (sum << 7 | sum >> 57) ^ word[i];
	return sum;
}

static __always_inline void fast_count(const struct xdp_md *ctx, __u32 what)
{
	struct metric *m = bpf_map_lookup_elem(&xdp_count_v1, &what);

	if (m) {
		m->count++;
		m->bytes += ctx->data_end - ctx->data;
	}
}

static __always_inline int fast_leave(const struct xdp_md *ctx)
{
	fast_count(ctx, FAST_LEFT);
	return XDP_PASS;
}

static __always_inline __u32 sum_fold(__u64 sum)
{
	sum = (sum >> 32) + (sum & 0xffffffff);
	sum = (sum >> 32) + (sum & 0xffffffff);
	sum = (sum >> 16) + (sum & 0xffff);
	return (sum >> 16) + (sum & 0xffff);
}

static __always_inline __u16 sum_short(__u64 sum)
{
	__u32 s = sum_fold(sum);

	return (s >> 16) + (s & 0xffff);
}

/* Of an address, for a sum of 16-bit words in ones' complement. What IPv4 addresses have in common cancels out or is not there. */
static __always_inline __u64 sum_addr(const struct addr *a, bool v6)
{
	const __u32 *w = (const __u32 *)a;

	return v6 ? (__u64)w[0] + w[1] + w[2] + w[3] : w[3];
}

static __always_inline __u64 sum_addr_gone(const struct addr *a, bool v6)
{
	const __u32 *w = (const __u32 *)a;

	return v6 ? (__u64)(__u32)~w[0] + (__u32)~w[1] + (__u32)~w[2] + (__u32)~w[3] : (__u32)~w[3];
}

/* A sender on the same machine leaves the sum to the device, which the packet may never meet: then there is only that of the pseudo
 * header yet. tc is told so by the kernel. */
static __always_inline bool fast_unsummed(const struct tuple *t, __u16 sum, __u32 len, bool v6)
{
	return sum == sum_short(sum_addr(&t->src, v6) + sum_addr(&t->dst, v6) + bpf_htons(t->proto) + bpf_htons(len));
}

/* What changes a connection ends what is remembered of it: a client may open another one from the same port at once. */
static __always_inline void fast_forget(struct pkt *p, const union l4_hdr *h)
{
	p->t.sport = h->sport;
	p->t.dport = h->dport;
	nat_key_from(&p->t, &p->nat, NAT_FORWARD);
	bpf_map_delete_elem(&fast_flows, &p->nat);
}

/* Ports and flags of a transport header of a packet that has `len` bytes behind its IP header. Returns where its checksum is, or
 * NULL. */
static __always_inline __sum16 *fast_parse(const struct xdp_md *ctx, struct pkt *p, union l4_hdr *h, __u32 len, bool v6)
{
	void *end = (void *)(long)ctx->data_end;
	__sum16 *sum;

	if (p->t.proto == PROTO_TCP) {
		__u32 own;

		sum = (void *)h + 16;
		if ((void *)h + 20 > end)
			return NULL;
		own = (h->offset >> 4) * 4;
		if (own < 20 || own > len)
			return NULL;
		if (h->flags & FAST_ALONE) {
			fast_forget(p, h);
			return NULL;
		}
		p->tcp_flags = h->flags;
	} else if (p->t.proto == PROTO_UDP) {
		__u32 own;

		sum = (void *)h + 6;
		if ((void *)h + 8 > end)
			return NULL;
		own = bpf_ntohs(h->len);
		if (own < 8 || own > len)
			return NULL;
		p->tcp_flags = 0;
	} else {
		return NULL;
	}
	p->t.sport = h->sport;
	p->t.dport = h->dport;
	return fast_unsummed(&p->t, *sum, len, v6) ? NULL : sum;
}

/* The row of a packet: its key gets its direction. `ours` says whether it may be a service's. */
static __always_inline struct nat_value *fast_row(struct pkt *p, bool *ours)
{
	struct nat_value *v;
	struct lb_frontend *f;
	__u32 *flags;

	if (nat_in_range(p->t.dport)) {
		p->nat.dir = NAT_REVERSE;
		v = bpf_map_lookup_elem(&nat_v2, &p->nat);
		if (v) {
			*ours = true;
			return v;
		}
	}
	flags = bpf_map_lookup_elem(&lb_address_v1, &p->t.dst);
	if (!flags)
		return NULL;
	p->nat.dir = NAT_FORWARD;
	v = bpf_map_lookup_elem(&nat_v2, &p->nat);
	*ours = v || *flags & LB_A_VIP;
	if (!v || p->t.proto == PROTO_TCP)
		return v;
	/* A datagram says each time which service it is for, where its backend answers itself: that takes room. */
	if (addr_eq(&v->src, &p->nat.src))
		return NULL;
	f = svc_find(&p->t, *flags, true);
	return f && f->slots == v->slots && svc_admits(f, &p->t.src) ? v : NULL;
}

/* The connection's row, if it lets the packet pass and nothing of it changes but the end of its life. p->t is the packet with the
 * destination it gets. */
static __always_inline struct ct_value *fast_conn(struct pkt *p, bool answer, bool one_way, __u64 now)
{
	struct ct_value *v;
	struct ct_key k;
	bool high;

	high = ct_key_from(&p->t, &k, false);
	v = bpf_map_lookup_elem(&ct_v1, &k);
	if (!v || v->epoch != p->epoch || v->expires <= now || ct_reply(v, high) != answer)
		return NULL;
	/* The first answer is noted, and so is, where answers do not come by here, what stands for it. */
	if (!(v->flags & CT_F_SEEN_REPLY) && (answer || one_way))
		return NULL;
	if (!answer && !(v->flags & CT_F_SERVICE))
		return NULL;
	/* Over soon; or an end is here, or behind the overlay. */
	if (v->flags & (CT_F_RST | CT_F_FIN_ORIG | CT_F_FIN_REPLY | FAST_ENDS))
		return NULL;
	if (v->src_identity <= IDENTITY_HOST || v->dst_identity <= IDENTITY_HOST)
		return NULL;
	return ct_due(v, p, answer, now) ? NULL : v;
}

/* The way of p->t, where its next hop is known and the packet of `len` bytes fits. Returns the verdict that sends it, once it is
 * as it should be, or XDP_PASS. Not XDP_TX, also where it leaves by the device it came by: of a veth whose other end has no program
 * itself, frames sent so lie around until the next one comes. */
static __always_inline int fast_route(struct xdp_md *ctx, const struct pkt *p, struct bpf_fib_lookup *f, __u32 len,
				      bool v6)
{
	f->family = v6 ? FAMILY_IPV6 : FAMILY_IPV4;
	f->ifindex = ctx->ingress_ifindex;
	f->l4_protocol = p->t.proto;
	f->tot_len = len;
	if (v6) {
		__builtin_memcpy(f->ipv6_src, p->t.src.b, sizeof(f->ipv6_src));
		__builtin_memcpy(f->ipv6_dst, p->t.dst.b, sizeof(f->ipv6_dst));
	} else {
		f->ipv4_src = addr_word(&p->t.src);
		f->ipv4_dst = addr_word(&p->t.dst);
	}
	if (bpf_fib_lookup(ctx, f, sizeof(*f), 0) != BPF_FIB_LKUP_RET_SUCCESS)
		return XDP_PASS;
	return bpf_redirect_map(&xdp_devices_v1, f->ifindex, XDP_PASS);
}

/* What a sum gains when a packet of `k` becomes `to`. */
static __always_inline __u64 fast_sum(const struct nat_key *k, const struct nat_value *to, bool v6)
{
	return sum_addr_gone(&k->src, v6) + sum_addr_gone(&k->dst, v6) + sum_addr(&to->src, v6) +
	       sum_addr(&to->dst, v6);
}

static __always_inline void fast_ports(union l4_hdr *h, __sum16 *sum, const struct nat_key *k,
				       const struct nat_value *to, __u64 gain)
{
	h->sport = to->sport;
	h->dport = to->dport;
	if (k->proto == PROTO_UDP && !*sum) /* it has none */
		return;
	gain += (__u16)~k->sport + (__u16)~k->dport;
	gain += (__u32)to->sport + to->dport + (__u16) ~*sum;
	*sum = ~sum_short(gain);
	if (k->proto == PROTO_UDP && !*sum)
		*sum = 0xffff;
}

static __always_inline void fast_rewrite4(struct iphdr *ip, const struct nat_value *to, __u64 gain)
{
	__u16 old = bpf_htons(ip->ttl << 8 | ip->protocol), new = bpf_htons((ip->ttl - 1) << 8 | ip->protocol);

	ip->saddr = addr_word(&to->src);
	ip->daddr = addr_word(&to->dst);
	ip->ttl--;
	ip->check = ~sum_short(gain + (__u16)~ip->check + (__u16)~old + new);
}

static __always_inline void fast_rewrite6(struct ipv6hdr *ip, const struct nat_value *to)
{
	__builtin_memcpy(&ip->saddr, to->src.b, sizeof(ip->saddr));
	__builtin_memcpy(&ip->daddr, to->dst.b, sizeof(ip->daddr));
	ip->hop_limit--;
}

static __always_inline void fast_forwarded(const struct xdp_md *ctx)
{
	__u32 key = 1; /* metric_dir of from_netdev: ingress; forwarded */
	struct metric *m = bpf_map_lookup_elem(&metrics_v1, &key);

	if (m) {
		m->count++;
		m->bytes += ctx->data_end - ctx->data;
	}
	fast_count(ctx, FAST_SENT);
}

/* A packet on its way: what is known of it, and where it lies. */
struct fast_packet {
	struct pkt *p; /* `nat` is what it is, `t` too until it has its destination */
	void *l3;
	union l4_hdr *h;
	__sum16 *sum;
	__u32 len; /* of the IP packet */
	bool v6;
};

/* What the rows say of a packet: fills `f`, of which only the check is missing. Returns the verdict that sends it, or XDP_PASS. */
static __always_inline int fast_ask(struct xdp_md *ctx, const struct fast_packet *m, struct fast_flow *f, __u64 now)
{
	struct bpf_fib_lookup way = {};
	struct nat_key *k = &m->p->nat;
	struct nat_value *v;
	bool ours = false, answer, one_way;
	struct ct_value *c;
	int verdict;

	v = fast_row(m->p, &ours);
	if (!v)
		return ours ? fast_leave(ctx) : XDP_PASS;
	f->to = *v; /* the row may become another's any time */
	answer = k->dir == NAT_REVERSE;
	one_way = addr_eq(&f->to.src, &k->src);
	/* Masquerade is a workload's: it changes the one end alone. */
	if (answer ? one_way && f->to.sport == k->sport : addr_eq(&f->to.dst, &k->dst) && f->to.dport == k->dport)
		return fast_leave(ctx);
	if (one_way && !answer && cfg.flags & CFG_DSR_IPIP) /* every packet goes inside another */
		return fast_leave(ctx);
	if (!nat_paired(k, &f->to))
		return fast_leave(ctx);
	m->p->t.dst = f->to.dst;
	m->p->t.dport = f->to.dport;
	c = fast_conn(m->p, answer, one_way, now);
	if (!c)
		return fast_leave(ctx);
	verdict = fast_route(ctx, m->p, &way, m->len, m->v6);
	if (verdict == XDP_PASS)
		return fast_leave(ctx);
	ct_prolong(c, now + ct_lifetime(k->proto, c->flags));
	ct_count(c, answer, ctx->data_end - ctx->data);
	f->until = now + FAST_GOOD_FOR;
	f->epoch = m->p->epoch;
	f->ifindex = way.ifindex;
	f->most = m->len;
	f->tcp_flags = c->tcp_flags[answer];
	__builtin_memcpy(f->dmac, way.dmac, sizeof(f->dmac));
	__builtin_memcpy(f->smac, way.smac, sizeof(f->smac));
	return verdict;
}

/* Whether what the rows said not long ago still goes, for this packet too. */
static __always_inline bool fast_holds(const struct fast_packet *m, const struct fast_flow *f, __u64 now)
{
	if (f->epoch != m->p->epoch || f->until <= now || m->len > f->most || f->check != fast_check(&m->p->nat, f))
		return false;
	return !(cfg.flags & CFG_TRACE) || !(m->p->tcp_flags & ~f->tcp_flags);
}

static __always_inline void fast_note(const struct fast_packet *m, struct fast_flow *row, struct fast_flow *f)
{
	struct nat_key *k = &m->p->nat;

	k->dir = NAT_FORWARD;
	f->check = fast_check(k, f);
	if (row)
		*row = *f;
	else
		bpf_map_update_elem(&fast_flows, k, f, BPF_ANY);
}

static __always_inline void fast_write(struct xdp_md *ctx, const struct fast_packet *m, const struct fast_flow *f)
{
	const struct nat_key *k = &m->p->nat;
	struct ethhdr *eth = m->l3 - ETH_HLEN;
	__u64 gain = fast_sum(k, &f->to, m->v6);

	if (m->v6)
		fast_rewrite6(m->l3, &f->to);
	else
		fast_rewrite4(m->l3, &f->to, gain);
	fast_ports(m->h, m->sum, k, &f->to, gain);
	__builtin_memcpy(eth->h_dest, f->dmac, ETH_ALEN);
	__builtin_memcpy(eth->h_source, f->smac, ETH_ALEN);
	fast_forwarded(ctx);
}

/* A packet that is understood: p->t has its addresses and protocol, `h` is its transport header of `len` bytes with all behind it. */
static __always_inline int fast_ip(struct xdp_md *ctx, struct pkt *p, void *l3, union l4_hdr *h, __u32 len, bool v6)
{
	struct fast_packet m = {.p = p, .l3 = l3, .h = h, .len = len + ((void *)h - l3), .v6 = v6};
	struct fast_flow f = {}, *row = NULL;
	__u64 now;
	int verdict;

	m.sum = fast_parse(ctx, p, h, len, v6);
	if (!m.sum)
		return XDP_PASS;
	now = pkt_now(p);
	nat_key_from(&p->t, &p->nat, NAT_FORWARD);
	if (!(cfg.flags & CFG_ACCOUNTING)) /* which wants to know of each packet */
		row = bpf_map_lookup_elem(&fast_flows, &p->nat);
	if (row) {
		f = *row;
		if (fast_holds(&m, &f, now)) {
			verdict = bpf_redirect_map(&xdp_devices_v1, f.ifindex, XDP_PASS);
			if (verdict == XDP_PASS)
				return fast_leave(ctx);
			fast_write(ctx, &m, &f);
			return verdict;
		}
	}
	verdict = fast_ask(ctx, &m, &f, now);
	if (verdict == XDP_PASS)
		return XDP_PASS;
	if (!(cfg.flags & CFG_ACCOUNTING))
		fast_note(&m, row, &f);
	fast_write(ctx, &m, &f);
	return verdict;
}

static __always_inline int fast_4(struct xdp_md *ctx, struct pkt *p, struct iphdr *ip)
{
	void *end = (void *)(long)ctx->data_end;
	__u32 len;

	if ((void *)(ip + 1) > end)
		return XDP_PASS;
	len = bpf_ntohs(ip->tot_len);
	if (*(__u8 *)ip != IP_PLAIN || ip->frag_off & bpf_htons(IP_PIECE) || ip->ttl <= 1 || len < sizeof(*ip) ||
	    len > end - (void *)ip)
		return XDP_PASS;
	addr_from4(&p->t.src, ip->saddr);
	addr_from4(&p->t.dst, ip->daddr);
	p->t.proto = ip->protocol;
	return fast_ip(ctx, p, ip, (void *)(ip + 1), len - sizeof(*ip), false);
}

static __always_inline int fast_6(struct xdp_md *ctx, struct pkt *p, struct ipv6hdr *ip)
{
	void *end = (void *)(long)ctx->data_end;
	__u32 len;

	if ((void *)(ip + 1) > end)
		return XDP_PASS;
	len = bpf_ntohs(ip->payload_len);
	if (ip->version != 6 || ip->hop_limit <= 1 || len > end - (void *)(ip + 1))
		return XDP_PASS;
	addr_from6(&p->t.src, &ip->saddr);
	addr_from6(&p->t.dst, &ip->daddr);
	if (addr_is4(&p->t.src) || addr_is4(&p->t.dst))
		return XDP_PASS;
	p->t.proto = ip->nexthdr;
	return fast_ip(ctx, p, ip, (void *)(ip + 1), len, true);
}

/* Sends a frame on, or lets it pass. */
static __always_inline int fast_frame(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;
	struct pkt *p;

	if (!(cfg.flags & CFG_SERVICES) || (void *)(eth + 1) > end)
		return XDP_PASS;
	p = pkt_scratch();
	if (!p)
		return XDP_PASS;
	if (eth->h_proto == bpf_htons(ETH_P_IP) && cfg.flags & CFG_IPV4)
		return fast_4(ctx, p, (void *)(eth + 1));
	if (eth->h_proto == bpf_htons(ETH_P_IPV6) && cfg.flags & CFG_IPV6)
		return fast_6(ctx, p, (void *)(eth + 1));
	return XDP_PASS;
}
