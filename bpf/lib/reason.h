/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Why a packet was dropped (numbers of the flow API), and in which file. */
#pragma once

enum drop_reason {
	DROP_SOURCE_MAC = 130,
	DROP_SOURCE_IP = 132,
	DROP_POLICY = 133,             /* the default of the set denied */
	DROP_INVALID = 134,
	DROP_TRUNCATED = 135,
	DROP_L4_PROTOCOL = 137,
	DROP_L3_PROTOCOL = 139,
	DROP_WRITE = 141,
	DROP_TUNNEL_KEY = 147,
	DROP_L3_TARGET = 150,
	DROP_UNROUTABLE = 151,
	DROP_CT_FULL = 155,
	DROP_EXTENSION_HEADER = 156,
	DROP_FRAGMENT = 157,
	DROP_NO_SERVICE = 158,         /* no backend, or no service at this port of a VIP */
	DROP_NO_TUNNEL = 160,
	DROP_CT_STATE = 163,
	DROP_NO_POLICY = 165,
	DROP_NAT_NO_MAPPING = 167,     /* no port is free, or the translation is not on record */
	DROP_NAT_PROTOCOL = 168,
	DROP_FIB = 169,
	DROP_ENCAPSULATION = 170,
	DROP_IDENTITY = 171,
	DROP_UNKNOWN_SENDER = 172,
	DROP_FIRST_FRAGMENT = 175,     /* not seen */
	DROP_ICMPV6_FORBIDDEN = 176,
	DROP_SOURCE_RANGE = 177,       /* the service is not for clients from there */
	DROP_PROXY = 180,
	DROP_POLICY_DENY = 181,        /* a rule denied */
	DROP_VLAN = 182,
	DROP_AUTH = 189,
	DROP_TTL = 196,
	DROP_MULTICAST = 201,
};

enum source_file {
	FILE_POD = 1,
	FILE_OVERLAY = 2,
	FILE_HOST = 3,
	FILE_PARSE = 4,
	FILE_EXT = 5,
	FILE_FRAG = 6,
	FILE_QUOTE = 7,
	FILE_CONN = 8,
	FILE_POLICY = 9,
	FILE_DELIVER = 10,
	FILE_NAT = 11,
	FILE_REWRITE = 12,
	FILE_NEIGH = 13,
	FILE_OUTSIDE = 14,
	FILE_TUNNEL = 15,
	FILE_SOCK = 16,
	FILE_SERVICE = 17,
	FILE_FORWARD = 18,
	FILE_DSR = 19,
};
