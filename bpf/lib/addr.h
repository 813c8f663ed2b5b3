/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* One address type for both IP versions: 128 bits, IPv4 as v4-mapped (::ffff:a.b.c.d), network byte order. */
#pragma once

#include "bpf.h"

struct addr {
	__u8 b[16];
} __attribute__((aligned(8)));

static __always_inline __u64 addr_high(const struct addr *a)
{
	return *(const __u64 *)&a->b[0];
}

static __always_inline __u64 addr_low(const struct addr *a)
{
	return *(const __u64 *)&a->b[8];
}

/* The last 32 bits: all of an IPv4 address. */
static __always_inline __be32 addr_word(const struct addr *a)
{
	return *(const __be32 *)&a->b[12];
}

static __always_inline bool addr_eq(const struct addr *a, const struct addr *b)
{
	return addr_low(a) == addr_low(b) && addr_high(a) == addr_high(b);
}

static __always_inline bool addr_zero(const struct addr *a)
{
	return !(addr_low(a) | addr_high(a));
}

/* Order of memcmp. */
static __always_inline bool addr_less(const struct addr *a, const struct addr *b)
{
	__u64 x = bpf_be64_to_cpu(addr_high(a)), y = bpf_be64_to_cpu(addr_high(b));

	if (x != y)
		return x < y;
	return bpf_be64_to_cpu(addr_low(a)) < bpf_be64_to_cpu(addr_low(b));
}

static __always_inline void addr_from4(struct addr *a, __be32 v4)
{
	*(__u64 *)&a->b[0] = 0;
	*(__be32 *)&a->b[8] = bpf_htonl(0xffff);
	*(__be32 *)&a->b[12] = v4;
}

/* Copies 16 bytes that are aligned to 4 only, as in a packet. */
static __always_inline void addr_from6(struct addr *a, const void *v6)
{
	const __u32 *from = v6;
	__u32 *to = (__u32 *)a;

	to[0] = from[0];
	to[1] = from[1];
	to[2] = from[2];
	to[3] = from[3];
}

static __always_inline bool addr_is4(const struct addr *a)
{
	return !addr_high(a) && *(const __be32 *)&a->b[8] == bpf_htonl(0xffff);
}

/* 224.0.0.0/4, 240.0.0.0/4 with the broadcast address, ff00::/8. */
static __always_inline bool addr_multicast(const struct addr *a)
{
	return addr_is4(a) ? a->b[12] >= 224 : a->b[0] == 0xff;
}

/* 169.254.0.0/16, fe80::/10. */
static __always_inline bool addr_link_local(const struct addr *a)
{
	if (addr_is4(a))
		return a->b[12] == 169 && a->b[13] == 254;
	return a->b[0] == 0xfe && (a->b[1] & 0xc0) == 0x80;
}

/* 0.0.0.0/8, 127.0.0.0/8, ::, ::1: never on a wire between two machines. */
static __always_inline bool addr_own_host(const struct addr *a)
{
	if (addr_is4(a))
		return a->b[12] == 0 || a->b[12] == 127;
	return !addr_high(a) && bpf_be64_to_cpu(addr_low(a)) <= 1;
}
