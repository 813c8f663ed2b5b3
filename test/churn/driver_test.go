package churn

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/test/churn/history"
	"github.com/hypha-net/hypha/test/churn/probe"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// patience is how long one change may take, agents coming back included.
const patience = time.Minute

// driver changes a cluster and remembers what it did.
type driver struct {
	t     *testing.T
	c     *cluster.Cluster
	r     *rand.Rand
	field *probe.Field

	base     [][]netip.Addr // of each node: addresses to count from
	pods     map[int]*pod   // by place
	made     int            // pods so far
	policies map[string]bool

	mu      sync.Mutex // the killer works beside
	changes []history.Change
}

type pod struct {
	*cluster.Pod
	id     int
	labels []string
	peer   *probe.Peer
}

func newDriver(t *testing.T, c *cluster.Cluster, r *rand.Rand) *driver {
	d := &driver{t: t, c: c, r: r, field: probe.New(), pods: map[int]*pod{}, policies: map[string]bool{}}
	for i := range c.Nodes { // one pod tells of the range
		p, err := c.Add(t.Context(), cluster.PodSpec{Name: fmt.Sprintf("scout%d", i), Node: i, Idle: true})
		if err != nil {
			t.Fatal(err)
		}
		d.base = append(d.base, p.Addrs)
		if err := c.Delete(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// addrs of a place, on node place mod nodes.
func (d *driver) addrs(place int) (out []netip.Addr) {
	for _, a := range d.base[place%len(d.base)] {
		b := a.AsSlice()
		b[len(b)-1] = byte(100 + place)
		next, _ := netip.AddrFromSlice(b)
		out = append(out, next)
	}
	return out
}

// change does something until it works, agents may be away meanwhile, and writes it down.
func (d *driver) change(c history.Change, do func(context.Context) error) {
	d.t.Helper()
	c.Begin = d.field.Now()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	var err error
	tries := 0
	for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		tries++
		if err = do(ctx); err == nil {
			break
		}
	}
	if err != nil {
		d.t.Fatalf("%s: not within %s: %v", c.Text, patience, err)
	}
	c.End = d.field.Now()
	if tries > 1 {
		c.Text += fmt.Sprintf(" (try %d)", tries)
	}
	d.mu.Lock()
	d.changes = append(d.changes, c)
	d.mu.Unlock()
}

func (d *driver) add(place int) {
	d.made++
	p := &pod{id: d.made, labels: randomLabels(d.r)}
	node := place % len(d.c.Nodes)
	c := history.Change{Kind: history.AddPod, Pod: p.id, Place: place, Labels: labelsOf(p.labels),
		Text: fmt.Sprintf("add pod %d on node%d at %v: %s", p.id, node+1, d.addrs(place), strings.Join(p.labels, " "))}
	var err error
	if p.Pod, err = d.c.Prepare(cluster.PodSpec{Name: fmt.Sprintf("p%d", p.id), Node: node, Labels: p.labels, Addrs: d.addrs(place)}); err != nil {
		d.t.Fatal(err)
	}
	if p.peer, err = d.field.Join(p.id, p.NS, d.addrs(place)); err != nil { // it sends before it is attached
		d.t.Fatal(err)
	}
	d.change(c, func(ctx context.Context) error {
		if err := d.c.Attach(ctx, p.Pod); err != nil {
			return errors.Join(err, d.c.Detach(ctx, p.Pod))
		}
		soon, cancel := context.WithTimeout(ctx, 10*time.Second) // killed in the middle, an agent may not have kept it
		defer cancel()
		if err := d.c.WaitPod(soon, p.Pod); err != nil {
			return errors.Join(err, d.c.Detach(ctx, p.Pod))
		}
		return nil
	})
	d.pods[place] = p
}

func (d *driver) remove(place int) {
	p := d.pods[place]
	delete(d.pods, place)
	d.change(history.Change{Kind: history.DeletePod, Pod: p.id, Text: fmt.Sprintf("delete pod %d", p.id)},
		func(ctx context.Context) error {
			if err := d.c.Detach(ctx, p.Pod); err != nil {
				return err
			}
			// While the agent is down, the pod is there, under its policy, until its namespace goes.
			if err := errors.Join(p.peer.Leave(), d.c.Delete(ctx, p.Pod)); err != nil {
				d.t.Fatal(err)
			}
			return nil
		})
}

func (d *driver) relabel(place int) {
	p := d.pods[place]
	was := p.labels
	for slices.Equal(p.labels, was) {
		p.labels = randomLabels(d.r)
	}
	d.change(history.Change{Kind: history.Relabel, Pod: p.id, Labels: labelsOf(p.labels),
		Text: fmt.Sprintf("relabel pod %d: %s -> %s", p.id, strings.Join(was, " "), strings.Join(p.labels, " "))},
		func(ctx context.Context) error { return d.c.Relabel(ctx, p.Pod, p.labels...) })
}

func (d *driver) put(name string) {
	doc, policy, err := randomPolicy(d.r, name)
	if err != nil {
		d.t.Fatal(err)
	}
	d.change(history.Change{Kind: history.PutPolicy, Name: name, Policy: policy, Text: "import " + doc},
		func(ctx context.Context) error { _, err := d.c.Import(ctx, doc); return err })
	d.policies[name] = true
}

func (d *driver) drop(name string) {
	d.change(history.Change{Kind: history.DropPolicy, Name: name, Text: "delete policy " + name},
		func(ctx context.Context) error {
			resp, err := d.c.Nodes[0].Reader().GetPolicy(ctx, connect.NewRequest(&agentv1.GetPolicyRequest{}))
			if err != nil {
				return err
			}
			if !strings.Contains(resp.Msg.String(), name) { // a try before has done it
				return d.c.WaitPolicy(ctx, resp.Msg.GetRevision())
			}
			return d.c.DeletePolicies(ctx, "io.cilium.k8s.policy.name="+name)
		})
	delete(d.policies, name)
}

// kill ends an agent with -9 and starts it again a little later.
func (d *driver) kill(r *rand.Rand) error {
	n := pick(r, d.c.Nodes)
	begin := d.field.Now()
	if err := n.Kill(); err != nil {
		return err
	}
	time.Sleep(time.Duration(r.IntN(500)) * time.Millisecond)
	if err := n.Start(context.Background(), 1); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changes = append(d.changes, history.Change{Kind: history.Kill, Name: n.Name, Begin: begin, End: d.field.Now(), Text: "kill -9 the agent of " + n.Name})
	return nil
}

// step makes one change. Places that are to be filled stay filled: who goes comes back as somebody else.
func (d *driver) step() {
	places := slices.Sorted(maps.Keys(d.pods))
	switch x := d.r.IntN(10); {
	case x < 4 || len(d.policies) == 0:
		d.put(fmt.Sprintf("policy%d", d.r.IntN(4)))
	case x < 6:
		d.drop(pick(d.r, slices.Sorted(maps.Keys(d.policies))))
	case x < 9:
		d.relabel(pick(d.r, places))
	default:
		place := pick(d.r, places)
		d.remove(place)
		d.add(place)
	}
}
