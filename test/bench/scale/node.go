package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	stdmaps "maps"
	"os"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/test/bench/meter"
	"github.com/hypha-net/hypha/test/bench/page"
	"github.com/hypha-net/hypha/test/bench/stat"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// Rows 9 and 14: one node, its store its own.

// outcome is what a site showed.
type outcome struct {
	*site
	start     meter.Memory // without workloads
	full      meter.Memory // with workloads and policies
	idle      meter.Memory // behind the idle window
	end       meter.Memory // behind all changes
	idleCPU   float64      // seconds in the window
	maps      map[string]uint64
	imported  time.Duration // all policies, from the call until in force
	replica   attachments   // workloads of labels that the node has already
	fresh     attachments   // workloads of labels that are new to the cluster
	allow     []time.Duration
	deny      []time.Duration
	stored    []time.Duration // of a policy: until the call returns
	inForce   []time.Duration
	wrote     time.Duration // identities: until the last was in the store
	known     time.Duration // until the last was in the kernel
	changes   int
	changeCPU float64
}

// pause is between two looks at something that is waited for.
const pause = 2 * time.Millisecond

func oneNode(ctx context.Context, o options) (text string, err error) {
	var all []*outcome
	defer func() {
		for _, s := range all {
			err = errors.Join(err, s.Close())
		}
	}()
	for _, b := range o.bins {
		s, err := newSite(ctx, o, b, false)
		if err != nil {
			return "", err
		}
		all = append(all, &outcome{site: s})
	}
	for _, step := range []struct {
		about string
		run   func(context.Context, options, []*outcome) error
	}{
		{"identities", learn}, {"workloads and policies", fill}, {"services", serve}, {"idle", idle}, {"attachments", attach}, {"policy changes", apply}, {"churn", churn},
	} {
		_, _ = fmt.Fprintln(os.Stderr, " ", step.about)
		if err := step.run(ctx, o, all); err != nil {
			return "", fmt.Errorf("%s: %w", step.about, err)
		}
	}
	return nodeTable(o, all), nil
}

// fill attaches the workloads, imports the policies.
func fill(ctx context.Context, _ options, all []*outcome) (err error) {
	for i := range workloads {
		for _, s := range all {
			if _, err := s.Add(ctx, cluster.PodSpec{Name: fmt.Sprintf("w%d", i), Labels: []string{appLabel(i)}, Idle: true}); err != nil {
				return err
			}
		}
	}
	doc := manyRules(policies)
	for _, s := range all {
		began := time.Now()
		if _, err := s.Import(ctx, doc); err != nil {
			return err
		}
		s.imported = time.Since(began)
	}
	return nil
}

// serve makes the services, of three backends each.
func serve(ctx context.Context, _ options, all []*outcome) error {
	for i := range services {
		s := &agentv1.Service{Id: uint32(i + 1), Name: fmt.Sprintf("s%d", i), Type: "ClusterIP",
			Frontend: &agentv1.Frontend{Ip: fmt.Sprintf("10.96.%d.%d", i/250, i%250+1), Port: 80, Protocol: "TCP"}}
		for j := range 3 {
			s.Backends = append(s.Backends, &agentv1.Backend{Ip: fmt.Sprintf("10.11.%d.%d", i/250, (i+j)%250+1), Port: 8080, Protocol: "TCP"})
		}
		for _, site := range all {
			if _, err := site.node.Admin().UpdateService(ctx, connect.NewRequest(&agentv1.UpdateServiceRequest{Service: s})); err != nil {
				return err
			}
		}
	}
	return nil
}

// idle lets the agents settle and watches them do nothing.
func idle(ctx context.Context, o options, all []*outcome) error {
	if err := meter.Wait(ctx, 10*time.Second); err != nil {
		return err
	}
	before := make([]float64, len(all))
	for i, s := range all {
		var err error
		if s.full, err = meter.MemoryOf(s.node.PID()); err != nil {
			return err
		}
		if s.maps, err = meter.MapBytes(s.node.Paths.Maps()); err != nil {
			return err
		}
		s.profile(ctx, o, "idle", o.idle)
		if before[i], err = meter.CPUOf(s.node.PID()); err != nil {
			return err
		}
	}
	if err := meter.Wait(ctx, o.idle); err != nil {
		return err
	}
	for i, s := range all {
		now, err := meter.CPUOf(s.node.PID())
		if err != nil {
			return err
		}
		s.idleCPU = now - before[i]
		if s.idle, err = meter.MemoryOf(s.node.PID()); err != nil {
			return err
		}
	}
	return nil
}

// learn writes the identities of the other nodes' workloads and waits until each agent has them in its kernel map.
func learn(ctx context.Context, _ options, all []*outcome) (err error) {
	for _, s := range all {
		if s.start, err = meter.MemoryOf(s.node.PID()); err != nil {
			return err
		}
		kvs, err := identityRows(0, identities, 100)
		if err != nil {
			return err
		}
		pin := s.node.Paths.Maps() + "/class_v1"
		have, err := meter.Rows[uint32, uint32](pin)
		if err != nil {
			return err
		}
		began := time.Now()
		if err := s.write(ctx, kvs); err != nil {
			return err
		}
		s.wrote = time.Since(began)
		if err := meter.Reach(ctx, have+identities, pause, func() (int, error) { return meter.Rows[uint32, uint32](pin) }); err != nil {
			return err
		}
		s.known = time.Since(began)
	}
	return nil
}

// apply changes a policy and looks when packets are judged by it.
func apply(ctx context.Context, o options, all []*outcome) error {
	doc := document(object{"labels": []object{{"key": "name", "value": "probe"}}, "endpointSelector": selector("app", "a1"),
		"ingress": []object{{"fromEndpoints": []object{selector("app", "a2")}, "toPorts": ports("UDP", probePort)}}})
	probes := make([]*probe, len(all))
	for i, s := range all {
		p, err := startProbe(s.pod(2), s.pod(1))
		if err != nil {
			return err
		}
		defer func() { _ = p.stop() }()
		probes[i] = p
	}
	for range o.apply {
		for i, s := range all {
			began := time.Now()
			took, err := probes[i].allowed(func() error {
				rev, err := s.importOnly(ctx, doc)
				s.stored = append(s.stored, time.Since(began))
				if err == nil {
					err = s.WaitPolicy(ctx, rev)
				}
				s.inForce = append(s.inForce, time.Since(began))
				return err
			})
			if err != nil {
				return err
			}
			s.allow = append(s.allow, took)
			if took, err = probes[i].denied(func() error { return s.DeletePolicies(ctx, "name=probe") }); err != nil {
				return err
			}
			s.deny = append(s.deny, took)
		}
	}
	return nil
}

// churn changes all sorts of things for a while, the same on each site.
func churn(ctx context.Context, _ options, all []*outcome) error {
	const rounds = 40
	for _, s := range all {
		before, err := meter.CPUOf(s.node.PID())
		if err != nil {
			return err
		}
		for i := range rounds {
			pod, _, err := s.attach(ctx, cluster.PodSpec{Name: fmt.Sprintf("churn%d", i), Labels: []string{appLabel(i % workloads)}})
			if err != nil {
				return err
			}
			r := rule(i)
			r["labels"] = []object{{"key": "name", "value": "churn"}}
			if _, err := s.Import(ctx, document(r)); err != nil {
				return err
			}
			kvs, err := identityRows(i*10, (i+1)*10, 100) // they go and come back: other numbers may be in use by now
			if err != nil {
				return err
			}
			err = errors.Join(s.remove(ctx, kvs), s.write(ctx, kvs), s.DeletePolicies(ctx, "name=churn"), s.Delete(ctx, pod))
			if err != nil {
				return err
			}
			s.changes += 4 + 20
		}
		after, err := meter.CPUOf(s.node.PID())
		if err != nil {
			return err
		}
		s.changeCPU = after - before
	}
	if err := meter.Wait(ctx, 10*time.Second); err != nil {
		return err
	}
	for _, s := range all {
		var err error
		if s.end, err = meter.MemoryOf(s.node.PID()); err != nil {
			return err
		}
	}
	return nil
}

// Targets of rows 9 and 14.
const (
	applyP50    = 2 * time.Millisecond
	applyP99    = 10 * time.Millisecond
	attachMost  = 5 * time.Millisecond
	rssMost     = 80e6
	mapsMost    = 40e6
	idleMost    = 5.0 // thousandths of a CPU
	idRateLeast = 10000.0
)

func nodeTable(o options, all []*outcome) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d workloads, %d policies, %d identities, %d services of three backends, the store in the agent. "+
		"Idle: %s, beginning 10 s after the last change.\n\n", workloads, policies, identities, services, o.idle)
	for _, s := range all {
		if len(all) > 1 {
			fmt.Fprintf(&b, "#### Build: %s\n\n", s.name)
		}
		var t page.Targets
		milli := 1000 * s.idleCPU / o.idle.Seconds()
		t.Add("memory, idle", s.idle.String(), "<= 80 MB", s.idle.RSS <= rssMost)
		t.Add("CPU, idle", fmt.Sprintf("%.1f m", milli), "<= 5 m", milli <= idleMost)
		var charged uint64
		for _, n := range s.maps {
			charged += n
		}
		t.Add("kernel maps and event rings", fmt.Sprintf("%.1f MB", meter.Mega(charged)), "<= 40 MB", float64(charged) <= mapsMost)
		both := func(what string, v []time.Duration, p50, p99 time.Duration) {
			x := stat.SpreadOf(v)
			t.Add(what+fmt.Sprintf(", p50 and p99 of %d", x.N), page.MS(x.P50)+", "+page.MS(x.P99), "<= "+page.MS(p50)+", "+page.MS(p99), x.P50 <= p50 && x.P99 <= p99)
		}
		both("a policy that allows, from the call to the first right verdict", s.allow, applyP50, applyP99)
		both("a policy that is deleted, from the call to the last wrong verdict", s.deny, applyP50, applyP99)
		both("attach, CNI exec included, labels that the node has already", s.replica.took, attachMost, attachMost)
		both("attach, CNI exec included, labels new to the cluster", s.fresh.took, attachMost, attachMost)
		rate := float64(identities) / s.known.Seconds()
		t.Add("identities, from the first write to the store to the last row in the kernel", fmt.Sprintf("%.0f/s", rate), ">= 10000/s", rate >= idRateLeast)
		b.WriteString(t.String())
		fmt.Fprintf(&b, "Memory: %s at start, %s with workloads and policies, %s after %d changes and 10 s; %.0f MB at most. Those changes took %.2f s of CPU, %.1f ms each.\n",
			s.start, s.full, s.end, s.changes, meter.Mega(s.end.Peak), s.changeCPU, 1000*s.changeCPU/float64(s.changes))
		fmt.Fprintf(&b, "All policies in one import: %s until in force. A policy: stored after %s (p50), in force after %s. Identities: all stored after %s, in the kernel %s later.\n\n",
			page.MS(s.imported), page.MS(stat.SpreadOf(s.stored).P50), page.MS(stat.SpreadOf(s.inForce).P50), page.MS(s.wrote), page.MS(s.known-s.wrote))
		b.WriteString("Kernel memory: " + largest(s.maps) + "\n\n")
		b.WriteString(s.replica.steps.table("Where the time of an attachment goes, p50 (labels that the node has already)"))
	}
	return b.String()
}

// largest are the maps that take most.
func largest(maps map[string]uint64) string {
	names := slices.SortedFunc(stdmaps.Keys(maps), func(a, b string) int { return cmp.Compare(maps[b], maps[a]) })
	var out []string
	for _, n := range names[:min(8, len(names))] {
		out = append(out, fmt.Sprintf("%s %.1f MB", n, meter.Mega(maps[n])))
	}
	return strings.Join(out, ", ") + "."
}
