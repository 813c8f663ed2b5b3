package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/source/kvstore"
	"github.com/hypha-net/hypha/test/bench/meter"
	"github.com/hypha-net/hypha/test/bench/page"
	"github.com/hypha-net/hypha/test/bench/stat"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// The large cluster: an agent that shares a real etcd with many others, which the load generator stands in for. It writes
// their keys as they would.

const (
	crowdPods   = 20   // workloads of the node itself
	crowdRate   = 100  // changes a second while it churns
	crowdFreeze = 5000 // identities that come at once, while the agent is stopped
)

// crowdResult is what a site showed.
type crowdResult struct {
	*site
	empty    meter.Memory
	full     meter.Memory
	end      meter.Memory
	join     phase // everything comes while the agent runs
	restart  phase // the agent starts, everything is there
	written  time.Duration
	burst    time.Duration // crowdFreeze identities, from the store to the kernel map
	churnCPU float64
	churn    time.Duration
	changes  int
	seen     []time.Duration // of a change: from the write's answer until it is in the kernel
	behind   time.Duration   // after the last change, until all are in the kernel
}

// phase is one way to come to know the cluster.
type phase struct {
	took time.Duration
	cpu  float64 // seconds
}

func crowd(ctx context.Context, o options) (text string, err error) {
	var all []*crowdResult
	defer func() {
		for _, s := range all {
			err = errors.Join(err, s.Close())
		}
	}()
	for _, b := range o.bins {
		s, err := newSite(ctx, o, b, true)
		if err != nil {
			return "", err
		}
		all = append(all, &crowdResult{site: s})
	}
	for _, step := range []struct {
		about string
		run   func(context.Context, options, *crowdResult) error
	}{
		{"all join", crowdJoin}, {"a burst of identities", crowdBurst}, {"a restart", crowdRestart}, {"churn", crowdChurn},
	} {
		_, _ = fmt.Fprintln(os.Stderr, " ", step.about)
		for _, s := range all {
			if err := step.run(ctx, o, s); err != nil {
				return "", fmt.Errorf("%s: %w", step.about, err)
			}
		}
	}
	return crowdTable(o, all), nil
}

// crowdRows are the keys of all the other nodes and of their pods.
func crowdRows(o options) (out []kvstore.KV, err error) {
	for i := range o.nodes - 1 {
		n := farNode(i)
		kv, err := kvstore.NodeRow(n)
		if err != nil {
			return nil, err
		}
		out = append(out, kv)
		for _, p := range n.PodCIDRs {
			out = append(out, kvstore.PodCIDRRow(n.Name, p))
		}
	}
	ids, err := identityRows(0, o.peers, o.nodes-1)
	if err != nil {
		return nil, err
	}
	out = append(out, ids...)
	for i := range o.peers {
		node, e := podEntry(i, o.nodes-1)
		kv, err := kvstore.IPRow(clusterName, node, e)
		if err != nil {
			return nil, err
		}
		out = append(out, kv)
	}
	return out, nil
}

// converged waits until the kernel knows as many identities and addresses, and the agent all nodes.
func (s *crowdResult) converged(ctx context.Context, o options, ids, ips int) error {
	if err := meter.Reach(ctx, ids, pause, s.classes); err != nil {
		return fmt.Errorf("identities: %w", err)
	}
	if err := meter.Reach(ctx, ips, pause, s.addresses); err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	return meter.Reach(ctx, o.nodes, pause, func() (int, error) {
		st, err := s.node.Status(ctx)
		return int(st.GetNodes()), err
	})
}

func (s *crowdResult) classes() (int, error) {
	return meter.Rows[uint32, uint32](s.node.Paths.Maps() + "/class_v1")
}

func (s *crowdResult) addresses() (int, error) {
	return meter.Rows[maps.Addr, maps.IPCacheValue](s.node.Paths.Maps() + "/ipcache_exact_v1")
}

// farAddrs is how many exact addresses the cluster's other nodes bring, their own included: two underlay addresses and two
// routers each.
func farAddrs(o options) int { return o.peers + 4*(o.nodes-1) }

// crowdJoin has everything come while the agent runs.
func crowdJoin(ctx context.Context, o options, s *crowdResult) error {
	kvs, err := crowdRows(o)
	if err != nil {
		return err
	}
	if s.empty, err = meter.MemoryOf(s.node.PID()); err != nil {
		return err
	}
	ids, err := s.classes()
	if err != nil {
		return err
	}
	ips, err := s.addresses()
	if err != nil {
		return err
	}
	cpu, err := meter.CPUOf(s.node.PID())
	if err != nil {
		return err
	}
	s.profile(ctx, o, "join", 10*time.Second)
	began := time.Now()
	if err := s.write(ctx, kvs); err != nil {
		return err
	}
	s.written = time.Since(began)
	if err := s.converged(ctx, o, ids+o.peers, ips+farAddrs(o)); err != nil {
		return err
	}
	s.join.took = time.Since(began)
	after, err := meter.CPUOf(s.node.PID())
	s.join.cpu = after - cpu
	if err != nil {
		return err
	}
	for i := range crowdPods { // their numbers are free ones
		if _, err := s.Add(ctx, cluster.PodSpec{Name: fmt.Sprintf("w%d", i), Labels: []string{appLabel(i)}, Idle: true}); err != nil {
			return err
		}
	}
	if _, err := s.Import(ctx, manyRules(policies)); err != nil {
		return err
	}
	if err := meter.Wait(ctx, 10*time.Second); err != nil {
		return err
	}
	s.full, err = meter.MemoryOf(s.node.PID())
	return err
}

// crowdBurst measures how fast identities come from the store into the kernel: the agent stands still while they are
// written, so that writing is not what is measured.
func crowdBurst(ctx context.Context, o options, s *crowdResult) (err error) {
	kvs, err := identityRows(0, crowdFreeze, o.nodes-1)
	if err != nil {
		return err
	}
	ids, err := s.classes()
	if err != nil {
		return err
	}
	if err := s.remove(ctx, kvs); err != nil {
		return err
	}
	gone := func() (int, error) {
		n, err := s.classes()
		return ids - n, err
	}
	if err := meter.Reach(ctx, crowdFreeze, pause, gone); err != nil {
		return err
	}
	pid := s.node.PID()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	err = s.write(ctx, kvs)
	began := time.Now()
	if err := errors.Join(err, syscall.Kill(pid, syscall.SIGCONT)); err != nil {
		return err
	}
	if err := meter.Reach(ctx, ids, pause, s.classes); err != nil {
		return err
	}
	s.burst = time.Since(began)
	return nil
}

// crowdRestart starts the agent afresh: nothing of the cluster is in its kernel maps or its files.
func crowdRestart(ctx context.Context, o options, s *crowdResult) error {
	ids, err := s.classes()
	if err != nil {
		return err
	}
	ips, err := s.addresses()
	if err != nil {
		return err
	}
	if err := s.node.Stop(); err != nil {
		return err
	}
	for _, name := range []string{"ips.json", "nodes.json", "identities.json"} {
		if err := os.Remove(s.node.Paths.State + "/" + name); err != nil {
			return err
		}
	}
	for _, name := range []string{"class_v1", "ipcache_exact_v1", "ipcache_v1"} {
		if err := os.Remove(s.node.Paths.Maps() + "/" + name); err != nil {
			return err
		}
	}
	began := time.Now()
	if err := s.node.Start(ctx, 1); err != nil {
		return err
	}
	if err := s.converged(ctx, o, ids, ips); err != nil {
		return err
	}
	s.restart.took = time.Since(began)
	s.restart.cpu, err = meter.CPUOf(s.node.PID())
	return err
}

// crowdChurn changes pods of other nodes: one goes, and comes back with another identity.
func crowdChurn(ctx context.Context, o options, s *crowdResult) error {
	if err := meter.Wait(ctx, 5*time.Second); err != nil {
		return err
	}
	before, err := meter.CPUOf(s.node.PID())
	if err != nil {
		return err
	}
	s.profile(ctx, o, "churn", o.churn)
	m, err := ebpf.LoadPinnedMap(s.node.Paths.Maps()+"/ipcache_exact_v1", &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	defer func() { _ = m.Close() }()
	// in says whether the kernel knows an address by an identity (0: not at all).
	in := func(a netip.Addr, id uint32) bool {
		var v maps.IPCacheValue
		err := m.Lookup(maps.AddrFrom(a), &v)
		return err == nil && v.Identity == id || id == 0 && errors.Is(err, ebpf.ErrKeyNotExist)
	}
	type change struct {
		addr netip.Addr
		id   uint32
	}
	last := map[netip.Addr]uint32{}
	var mu sync.Mutex
	began := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(50)
	tick := time.NewTicker(time.Second / crowdRate)
	defer tick.Stop()
	for i := 0; time.Since(began) < o.churn; i++ {
		node, e := podEntry(i/2, o.nodes-1)
		c := change{addr: e.Prefix.Addr()}
		kv, err := kvstore.IPRow(clusterName, node, e)
		if err != nil {
			return err
		}
		op := clientv3.OpDelete(kv.Key)
		if i%2 == 1 {
			e.Identity = identityOf((i/2 + 7) % o.peers).ID
			c.id = uint32(e.Identity)
			if kv, err = kvstore.IPRow(clusterName, node, e); err != nil {
				return err
			}
			op = clientv3.OpPut(kv.Key, string(kv.Value))
		}
		if _, err := s.store.Do(ctx, op); err != nil { // one after the other: the two of a pod stay in order
			return err
		}
		last[c.addr] = c.id
		s.changes++
		if c.id != 0 && i%20 == 1 {
			stored := time.Now()
			g.Go(func() error {
				for !in(c.addr, c.id) {
					if time.Since(stored) > 30*time.Second {
						return fmt.Errorf("%s is not known by its new identity after 30 s", c.addr)
					}
					if err := meter.Wait(gctx, 500*time.Microsecond); err != nil {
						return err
					}
				}
				mu.Lock()
				defer mu.Unlock()
				s.seen = append(s.seen, time.Since(stored))
				return nil
			})
		}
		select {
		case <-tick.C:
		case <-gctx.Done():
			return g.Wait()
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	s.churn = time.Since(began)
	after, err := meter.CPUOf(s.node.PID())
	s.churnCPU = after - before
	if err != nil {
		return err
	}
	ended := time.Now()
	err = meter.Reach(ctx, len(last), pause, func() (n int, err error) {
		for a, id := range last {
			if in(a, id) {
				n++
			}
		}
		return n, nil
	})
	s.behind = time.Since(ended)
	if err != nil {
		return err
	}
	s.end, err = meter.MemoryOf(s.node.PID())
	return err
}

func crowdTable(o options, all []*crowdResult) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d nodes, %d identities, %d pods of other nodes, in an etcd of its own on the same machine; %d workloads and %d policies on the node itself. "+
		"The load generator writes the other nodes' keys, 100 in a transaction. Churn: %d changes a second, for %s, of where pods are and who they are. CPU is the agent's.\n\n",
		o.nodes, o.peers, o.peers, crowdPods, policies, crowdRate, o.churn)
	b.WriteString("| |")
	for _, s := range all {
		fmt.Fprintf(&b, " %s |", s.name)
	}
	b.WriteString("\n| --- |" + strings.Repeat(" ---: |", len(all)) + "\n")
	line := func(what string, of func(*crowdResult) string) {
		fmt.Fprintf(&b, "| %s |", what)
		for _, s := range all {
			fmt.Fprintf(&b, " %s |", of(s))
		}
		b.WriteString("\n")
	}
	sec := func(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
	line("memory: alone", func(s *crowdResult) string { return s.empty.String() })
	line("memory: with all of it", func(s *crowdResult) string { return s.full.String() })
	line("memory: after the churn", func(s *crowdResult) string { return s.end.String() })
	line("all join while the agent runs: until all is stored", func(s *crowdResult) string { return sec(s.written) })
	line("... until all is in the kernel", func(s *crowdResult) string { return sec(s.join.took) })
	line("... CPU", func(s *crowdResult) string { return fmt.Sprintf("%.2f s", s.join.cpu) })
	line("the agent starts, all is in the store, nothing in kernel and files: until all is in the kernel", func(s *crowdResult) string { return sec(s.restart.took) })
	line("... CPU", func(s *crowdResult) string { return fmt.Sprintf("%.2f s", s.restart.cpu) })
	line(fmt.Sprintf("%d identities from the store to the kernel (target >= 10000/s)", crowdFreeze), func(s *crowdResult) string {
		return fmt.Sprintf("%s: %.0f/s", page.MS(s.burst), crowdFreeze/s.burst.Seconds())
	})
	line("churn: changes a second", func(s *crowdResult) string { return fmt.Sprintf("%.0f", float64(s.changes)/s.churn.Seconds()) })
	line("... a change, from stored to in the kernel, p50 and p99", func(s *crowdResult) string {
		x := stat.SpreadOf(s.seen)
		return page.MS(x.P50) + ", " + page.MS(x.P99)
	})
	line("... CPU each second", func(s *crowdResult) string { return fmt.Sprintf("%.0f m", 1000*s.churnCPU/s.churn.Seconds()) })
	line("... until the last is in the kernel", func(s *crowdResult) string { return page.MS(s.behind) })
	return b.String()
}
