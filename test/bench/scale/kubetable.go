package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/hypha-net/hypha/test/bench/meter"
	"github.com/hypha-net/hypha/test/bench/page"
	"github.com/hypha-net/hypha/test/bench/stat"
)

// Targets of an agent in a large cluster on Kubernetes.
const (
	kubeMemory  = 300e6
	kubeLatency = 100 * time.Millisecond
)

func kubeTable(o options, all []*kubeResult) string {
	var b strings.Builder
	f := &o.kube
	fmt.Fprintf(&b, "%d nodes, %d pods with addresses of both versions, %d identities and %d policies in %d namespaces, half of them NetworkPolicies and half "+
		"CiliumNetworkPolicies, in a real API server on the same machine; %d pods on the node itself. CPU is the agent's. A policy comes and goes %d times; "+
		"its time is from the call to the API server to the first right verdict (the last wrong one) for a real flow. Churn: %d pods of other nodes a second are replaced, for %s.\n\n",
		f.nodes, f.pods, f.identities, f.policies, f.namespaces(), f.local, f.changes, kubeChurnRate, o.churn)
	if len(all) == 0 {
		return b.String()
	}
	last := all[len(all)-1]
	var t page.Targets
	t.Add("memory, behind its start and idle", last.idle.String(), "<= 300 MB", last.idle.RSS <= kubeMemory)
	t.Add("memory at most, while it starts", fmt.Sprintf("%.0f MB", meter.Mega(max(last.first.memory.Peak, last.again.memory.Peak))), "", true)
	both := func(what string, v []time.Duration) {
		x := stat.SpreadOf(v)
		t.Add(fmt.Sprintf("%s, p50 and p99 of %d", what, x.N), page.MS(x.P50)+", "+page.MS(x.P99), "p99 <= "+page.MS(kubeLatency), x.P99 <= kubeLatency)
	}
	both("a policy that allows", last.allow)
	both("a policy that is deleted", last.deny)
	b.WriteString(t.String())
	b.WriteString("| |")
	for _, r := range all {
		fmt.Fprintf(&b, " %s |", r.name)
	}
	b.WriteString("\n| --- |" + strings.Repeat(" ---: |", len(all)) + "\n")
	line := func(what string, of func(*kubeResult) string) {
		fmt.Fprintf(&b, "| %s |", what)
		for _, r := range all {
			fmt.Fprintf(&b, " %s |", of(r))
		}
		b.WriteString("\n")
	}
	spread := func(v []time.Duration) string {
		x := stat.SpreadOf(v)
		return page.MS(x.P50) + ", " + page.MS(x.P99)
	}
	for _, x := range []struct {
		what string
		of   func(*kubeResult) *kubeStart
	}{{"on a new node", func(r *kubeResult) *kubeStart { return &r.first }}, {"again, with its pods", func(r *kubeResult) *kubeStart { return &r.again }}} {
		line("starts "+x.what+": until it is ready, until all is in the kernel", func(r *kubeResult) string {
			return fmt.Sprintf("%.2f s, %.2f s", x.of(r).ready.Seconds(), x.of(r).synced.Seconds())
		})
		line("... CPU until then", func(r *kubeResult) string { return fmt.Sprintf("%.2f s", x.of(r).cpu) })
		line("... read from the API server", func(r *kubeResult) string { return fmt.Sprintf("%.1f MB", meter.Mega(uint64(x.of(r).told))) })
		line("... memory at most, and 10 s later", func(r *kubeResult) string {
			return fmt.Sprintf("%.0f MB, %s", meter.Mega(x.of(r).memory.Peak), x.of(r).memory)
		})
	}
	line("watches", func(r *kubeResult) string { return fmt.Sprint(r.again.watches) })
	line("idle: memory", func(r *kubeResult) string { return r.idle.String() })
	line("... heap in use", func(r *kubeResult) string { return fmt.Sprintf("%.0f MB", meter.Mega(r.heap)) })
	line("... CPU", func(r *kubeResult) string { return fmt.Sprintf("%.1f m", 1000*r.idleCPU/o.idle.Seconds()) })
	line("... read from the API server", func(r *kubeResult) string { return fmt.Sprintf("%.1f kB/s", float64(r.idleTold)/1000/o.idle.Seconds()) })
	line("a policy: the API server answers, p50 and p99", func(r *kubeResult) string { return spread(r.stored) })
	line("... allows", func(r *kubeResult) string { return spread(r.allow) })
	line("... is deleted", func(r *kubeResult) string { return spread(r.deny) })
	line("... by the agent's own metric, on average", func(r *kubeResult) string {
		if r.delay.n == 0 {
			return ""
		}
		return fmt.Sprintf("%.2f ms", 1000*r.delay.sum/r.delay.n)
	})
	line(fmt.Sprintf("%d identities of known classes: one row each, and in the kernel so long behind the API server's answer", kubeKnown),
		func(r *kubeResult) string { return page.MS(r.known) })
	line("churn: pods a second", func(r *kubeResult) string { return fmt.Sprintf("%.0f", float64(r.churn.pods)/r.churn.took.Seconds()) })
	line("... from the API server's answer until in the kernel, p50 and p99", func(r *kubeResult) string { return spread(r.churn.seen) })
	line("... CPU", func(r *kubeResult) string { return fmt.Sprintf("%.1f m", 1000*r.churn.cpu/r.churn.took.Seconds()) })
	line("... memory behind it", func(r *kubeResult) string { return r.churn.end.String() })
	fmt.Fprintf(&b, "\nRows in the kernel: %d of class_v1 (room for %d), %d of ipcache_exact_v1 (%d), %d of policy_v1 (%d).\n",
		last.rows["class_v1"], last.room["class_v1"], last.rows["ipcache_exact_v1"], last.room["ipcache_exact_v1"], last.rows["policy_v1"], last.room["policy_v1"])
	return b.String()
}
