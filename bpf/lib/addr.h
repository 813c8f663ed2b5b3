/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* One address type for both IP versions: 128 bits, IPv4 as v4-mapped (::ffff:a.b.c.d), network byte order. */
#pragma once

#include <linux/types.h>

struct addr {
	__u8 b[16];
} __attribute__((aligned(8)));
