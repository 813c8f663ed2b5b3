//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Services for the processes of a control group, where they connect: no packet needs to be changed afterwards. A socket
 * goes on believing that it talks to the service. */
#include "../lib/bpf.h"
#include "../lib/sock.h"

/* How long the datagrams of an unconnected socket stay with one backend after the last of them. */
#define SOCKET_IDLE (60 * NS_PER_SEC)

static __always_inline bool host_netns(__u64 netns)
{
	return netns == (cfg.host_netns ? cfg.host_netns : bpf_get_netns_cookie(NULL));
}

static __always_inline bool loopback(const struct addr *a)
{
	if (addr_is4(a))
		return a->b[12] == 127;
	return !addr_high(a) && addr_low(a) == bpf_cpu_to_be64(1);
}

/* Finds a backend for t->front, whose address has these flags. */
static __noinline int choose(struct bpf_sock_addr *ctx, struct talk *t, __u32 flags, __u32 datagram)
{
	struct lb_frontend_key k = {.addr = t->front, .port = t->front_port, .proto = ctx->protocol};
	struct lb_affinity_key who = {.kind = LB_CLIENT_NETNS};
	struct lb_frontend *f = lb_find(&k, flags);
	struct lb_backend to;
	__u64 netns, idle;
	enum lb_answer answer;

	if (!f)
		return flags & LB_A_VIP ? LB_REFUSED : LB_NONE;
	netns = bpf_get_netns_cookie(ctx);
	*(__u64 *)&who.client.b[8] = netns;
	t->service = who.service = f->service;
	idle = f->affinity * NS_PER_SEC;
	if (!idle && datagram) {
		who.kind = LB_CLIENT_SOCKET;
		*(__u64 *)&who.client.b[8] = bpf_get_socket_cookie(ctx);
		idle = SOCKET_IDLE;
	}
	answer = lb_pick(f, &who, idle, lb_mix(netns ^ lb_mix(who.service)), false, &to);
	if (answer < LB_KEPT)
		return answer;
	t->back = to.addr;
	t->back_port = to.port;
	return answer;
}

/* Notes what the socket believes, for those who ask it later. */
static __noinline int remember(struct bpf_sock_addr *ctx, const struct talk *t)
{
	struct lb_reverse_key k = {
		.socket = bpf_get_socket_cookie(ctx),
		.addr = t->back,
		.port = t->back_port,
		.proto = ctx->protocol,
	};
	struct lb_reverse v = {.addr = t->front, .port = t->front_port, .service = t->service};
	struct lb_reverse *have = bpf_map_lookup_elem(&lb_reverse_v1, &k);

	if (have && addr_eq(&have->addr, &v.addr) && have->port == v.port && have->service == v.service)
		return 0;
	return bpf_map_update_elem(&lb_reverse_v1, &k, &v, BPF_ANY);
}

/* t->front may be a service: then t->back is the place to go to. */
static __noinline int translate(struct bpf_sock_addr *ctx, struct talk *t, __u32 flags, __u32 datagram)
{
	int answer;

	if (cfg.flags & CFG_SOCK_HOST && !host_netns(bpf_get_netns_cookie(ctx)))
		return ANSWER_YES;
	answer = choose(ctx, t, flags, datagram);
	if (answer == LB_GONE)
		answer = choose(ctx, t, flags, datagram);
	if (answer == LB_NONE)
		return ANSWER_YES;
	/* The kernel cannot send from a socket of one family to an address of the other. */
	if (answer < LB_KEPT || addr_is4(&t->front) != addr_is4(&t->back))
		return refuse(ctx, t, DROP_NO_SERVICE, __LINE__);
	if (remember(ctx, t))
		return refuse(ctx, t, DROP_CT_FULL, __LINE__);
	if (cfg.flags & CFG_TRACE && (!datagram || answer == LB_FRESH)) {
		talk_tell(ctx, t, EVENT_TRACE_SOCK, SOCK_PRE_FWD, 0);
		talk_tell(ctx, t, EVENT_TRACE_SOCK, SOCK_POST_FWD, 0);
	}
	return ANSWER_CHANGED;
}

/* What most calls cost is this one lookup. */
static __always_inline int forward(struct bpf_sock_addr *ctx, struct talk *t, __u32 datagram)
{
	__u32 *flags = bpf_map_lookup_elem(&lb_address_v1, &t->front);

	if (flags)
		return translate(ctx, t, *flags, datagram);
	if (loopback(&t->front) && host_netns(bpf_get_netns_cookie(ctx)))
		return translate(ctx, t, LB_A_NODE, datagram);
	return ANSWER_YES;
}

static __always_inline void get4(struct bpf_sock_addr *ctx, struct addr *a)
{
	addr_from4(a, ctx->user_ip4);
}

static __always_inline void get6(struct bpf_sock_addr *ctx, struct addr *a)
{
	__u32 *to = (__u32 *)a;

	to[0] = ctx->user_ip6[0];
	to[1] = ctx->user_ip6[1];
	to[2] = ctx->user_ip6[2];
	to[3] = ctx->user_ip6[3];
}

static __always_inline __be16 get_port(struct bpf_sock_addr *ctx)
{
	volatile __u32 port = ctx->user_port; /* the kernel allows access to all of it only */

	return port;
}

static __always_inline void set4(struct bpf_sock_addr *ctx, const struct addr *a, __be16 port)
{
	ctx->user_ip4 = addr_word(a);
	ctx->user_port = port;
}

static __always_inline void set6(struct bpf_sock_addr *ctx, const struct addr *a, __be16 port)
{
	const __u32 *from = (const __u32 *)a;

	ctx->user_ip6[0] = from[0];
	ctx->user_ip6[1] = from[1];
	ctx->user_ip6[2] = from[2];
	ctx->user_ip6[3] = from[3];
	ctx->user_port = port;
}

static __always_inline int forward4(struct bpf_sock_addr *ctx, __u32 datagram)
{
	struct talk t = {.front_port = get_port(ctx)};
	int answer;

	get4(ctx, &t.front);
	answer = forward(ctx, &t, datagram);
	if (answer != ANSWER_CHANGED)
		return answer;
	set4(ctx, &t.back, t.back_port);
	return ANSWER_YES;
}

/* An IPv6 socket that speaks IPv4 comes here with a v4-mapped address, which is what our addresses are anyway. */
static __always_inline int forward6(struct bpf_sock_addr *ctx, __u32 datagram)
{
	struct talk t = {.front_port = get_port(ctx)};
	int answer;

	get6(ctx, &t.front);
	answer = forward(ctx, &t, datagram);
	if (answer != ANSWER_CHANGED)
		return answer;
	set6(ctx, &t.back, t.back_port);
	return ANSWER_YES;
}

/* t->back is who the kernel says: true when the socket knows it as t->front. */
static __noinline int recall(struct bpf_sock_addr *ctx, struct talk *t)
{
	struct lb_reverse_key k = {
		.socket = bpf_get_socket_cookie(ctx),
		.addr = t->back,
		.port = t->back_port,
		.proto = ctx->protocol,
	};
	struct lb_reverse *v = bpf_map_lookup_elem(&lb_reverse_v1, &k);

	if (!v)
		return false;
	t->front = v->addr;
	t->front_port = v->port;
	t->service = v->service;
	if (cfg.flags & CFG_TRACE && !(v->flags & LB_R_TOLD)) {
		v->flags |= LB_R_TOLD;
		talk_tell(ctx, t, EVENT_TRACE_SOCK, SOCK_PRE_REV, 0);
		talk_tell(ctx, t, EVENT_TRACE_SOCK, SOCK_POST_REV, 0);
	}
	return true;
}

static __always_inline int backward4(struct bpf_sock_addr *ctx)
{
	struct talk t = {.back_port = get_port(ctx)};

	get4(ctx, &t.back);
	if (recall(ctx, &t))
		set4(ctx, &t.front, t.front_port);
	return ANSWER_YES;
}

static __always_inline int backward6(struct bpf_sock_addr *ctx)
{
	struct talk t = {.back_port = get_port(ctx)};

	get6(ctx, &t.back);
	if (recall(ctx, &t))
		set6(ctx, &t.front, t.front_port);
	return ANSWER_YES;
}

SEC("cgroup/connect4")
int sock_connect4(struct bpf_sock_addr *ctx)
{
	return forward4(ctx, false);
}

SEC("cgroup/connect6")
int sock_connect6(struct bpf_sock_addr *ctx)
{
	return forward6(ctx, false);
}

SEC("cgroup/sendmsg4")
int sock_sendmsg4(struct bpf_sock_addr *ctx)
{
	return forward4(ctx, true);
}

SEC("cgroup/sendmsg6")
int sock_sendmsg6(struct bpf_sock_addr *ctx)
{
	return forward6(ctx, true);
}

SEC("cgroup/recvmsg4")
int sock_recvmsg4(struct bpf_sock_addr *ctx)
{
	return backward4(ctx);
}

SEC("cgroup/recvmsg6")
int sock_recvmsg6(struct bpf_sock_addr *ctx)
{
	return backward6(ctx);
}

SEC("cgroup/getpeername4")
int sock_peer4(struct bpf_sock_addr *ctx)
{
	return backward4(ctx);
}

SEC("cgroup/getpeername6")
int sock_peer6(struct bpf_sock_addr *ctx)
{
	return backward6(ctx);
}

/* A process of the node that listens at a node port would listen in vain. */
static __always_inline bool bind_taken(struct bpf_sock *ctx, const struct addr *any)
{
	struct lb_frontend_key k = {.addr = *any, .port = bpf_htons(ctx->src_port), .proto = ctx->protocol};

	return bpf_map_lookup_elem(&lb_address_v1, any) && host_netns(bpf_get_netns_cookie(ctx)) && lb_frontend_at(&k);
}

SEC("cgroup/post_bind4")
int sock_bind4(struct bpf_sock *ctx)
{
	struct addr any;

	addr_from4(&any, 0);
	return bind_taken(ctx, &any) ? fail_call(EADDRINUSE) : ANSWER_YES;
}

/* Bound to the zero address an IPv6 socket listens for IPv4 too. */
SEC("cgroup/post_bind6")
int sock_bind6(struct bpf_sock *ctx)
{
	struct addr a, any = {};
	__u32 *to = (__u32 *)&a;

	to[0] = ctx->src_ip6[0];
	to[1] = ctx->src_ip6[1];
	to[2] = ctx->src_ip6[2];
	to[3] = ctx->src_ip6[3];
	if (!addr_is4(&a) && bind_taken(ctx, &any))
		return fail_call(EADDRINUSE);
	addr_from4(&any, 0);
	if ((addr_is4(&a) || addr_zero(&a)) && bind_taken(ctx, &any))
		return fail_call(EADDRINUSE);
	return ANSWER_YES;
}

char _license[] SEC("license") = "Dual BSD/GPL";
