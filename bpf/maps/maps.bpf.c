//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* Every shared map, and the types that user space needs. No programs: the loader creates these maps once, pins them,
 * and gives them to the program objects by name. */
#include "../lib/config.h"
#include "../lib/reason.h"
#include "ct.h"
#include "endpoint.h"
#include "event.h"
#include "frag.h"
#include "ipcache.h"
#include "lb.h"
#include "nat.h"
#include "node.h"
#include "policy.h"
#include "prefilter.h"
#include "scratch.h"
#include "xdp.h"

/* Types that no map mentions reach the object's BTF through this function's argument. It is never loaded. */
struct exported_types {
	struct config config;
	struct event event;
	struct sock_event sock_event;
	enum area_flags area_flags;
	enum config_flags config_flags;
	enum ct_flags ct_flags;
	enum drop_reason drop_reason;
	enum device_flags device_flags;
	enum endpoint_flags endpoint_flags;
	enum event_flags event_flags;
	enum event_type event_type;
	enum fast_count fast_count;
	enum family family;
	enum ipcache_flags ipcache_flags;
	enum lb_address_flags lb_address_flags;
	enum lb_client lb_client;
	enum lb_frontend_flags lb_frontend_flags;
	enum lb_scope lb_scope;
	enum nat_dir nat_dir;
	enum policy_dir policy_dir;
	enum policy_flags policy_flags;
	enum policy_verdict policy_verdict;
	enum prefilter_flags prefilter_flags;
	enum sock_point sock_point;
	enum source_file source_file;
	enum state_flags state_flags;
	enum trace_point trace_point;
	enum trace_reason trace_reason;
};

int export_types(struct exported_types *types)
{
	return types != 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
