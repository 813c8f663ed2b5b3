// Package multipool gives each CiliumNode blocks of the CiliumPodIPPools that it asks for (spec.ipam.pools.requested), and takes back
// those that it takes out of spec.ipam.pools.allocated. A block that a node has stays, whatever becomes of its pool and of the node's
// object, until the node gives it back or is gone.
package multipool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	ciliumv2alpha1 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2alpha1"
	"github.com/hypha-net/hypha/internal/control/ipam"
	"github.com/hypha-net/hypha/internal/operator/metric"
	"github.com/hypha-net/hypha/internal/operator/need"
	"github.com/hypha-net/hypha/internal/operator/round"
)

// Config of it.
type Config struct {
	IPv4, IPv6 bool                                    // versions that workloads have
	Pools      map[string]ciliumv2alpha1.PodIPPoolSpec // to be made where there is none of the name
}

// Add runs it with the manager.
func Add(mgr ctrl.Manager, cfg Config) error {
	g := &giver{cfg: cfg, c: mgr.GetClient(), server: mgr.GetAPIReader(), events: mgr.GetEventRecorder("cilium-operator"),
		book: ipam.NewBook(), known: map[string]version{}, unwritten: map[string]ipam.Held{}, metrics: metric.Get()}
	return round.Add(mgr, "multipool", g.round, &ciliumv2.CiliumNode{}, &ciliumv2alpha1.CiliumPodIPPool{})
}

// giver gives blocks. What it gave it knows before the cache does.
type giver struct {
	cfg    Config
	c      client.Client
	server client.Reader // the API server itself, not the cache
	events events.EventRecorder

	book      *ipam.Book
	known     map[string]version   // the objects of nodes whose blocks are in the book
	unwritten map[string]ipam.Held // blocks that the node's object may not say yet
	metrics   *metric.Metrics
	begun     bool
}

// version is which object of a name it is, and which version of it.
type version struct {
	uid      types.UID
	revision uint64
}

func versionOf(n *ciliumv2.CiliumNode) version {
	revision, _ := strconv.ParseUint(n.ResourceVersion, 10, 64) // of one resource they rise
	return version{n.UID, revision}
}

// errBehind says that there is a newer version of an object than this one.
var errBehind = errors.New("the cache is behind")

func (g *giver) round(ctx context.Context) error {
	if err := g.begin(ctx); err != nil {
		return err
	}
	if err := g.pools(ctx); err != nil {
		return err
	}
	nodes, err := need.Nodes(ctx, g.c)
	if err != nil {
		return err
	}
	if err := g.release(ctx, nodes); err != nil {
		return err
	}
	bad := map[string]error{}
	for i := range nodes {
		if err := g.take(ctx, &nodes[i]); errors.As(err, new(*unreadable)) || errors.Is(err, errBehind) {
			bad[nodes[i].Name] = err
		} else if err != nil {
			return err
		}
	}
	nodes = slices.DeleteFunc(nodes, func(n ciliumv2.CiliumNode) bool { return errors.Is(bad[n.Name], errBehind) }) // it will be told of
	conflicts := g.book.Conflicts()
	lacking := 0
	var errs []error
	for i := range nodes {
		n := &nodes[i]
		why := cmp.Or(bad[n.Name], conflicts[n.Name])
		if bad[n.Name] == nil && n.DeletionTimestamp == nil {
			why = cmp.Or(why, g.give(n))
			errs = append(errs, g.write(ctx, n))
		}
		if why != nil {
			lacking++
		}
		errs = append(errs, need.Tell(ctx, g.c, g.events, n, why))
	}
	g.metrics.PodRanges.WithLabelValues("assigned").Set(float64(len(nodes) - lacking))
	g.metrics.PodRanges.WithLabelValues("unassigned").Set(float64(lacking))
	return round.Join(errs)
}

// begin makes the pools that are to be there, and learns what all nodes have, from the API server itself: a cache may be older than what
// the last leader gave.
func (g *giver) begin(ctx context.Context) error {
	if g.begun {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(g.cfg.Pools)) {
		p := &ciliumv2alpha1.CiliumPodIPPool{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: g.cfg.Pools[name]}
		if err := g.c.Create(ctx, p); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("make pool %s: %w", name, err)
		}
	}
	var list ciliumv2.CiliumNodeList
	if err := g.server.List(ctx, &list); err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	for i := range list.Items {
		if err := g.note(&list.Items[i]); err != nil {
			continue // told in the round
		}
	}
	g.begun = true
	return nil
}

// pools tells the book what there is to give.
func (g *giver) pools(ctx context.Context) error {
	var list ciliumv2alpha1.CiliumPodIPPoolList
	if err := g.c.List(ctx, &list); err != nil {
		return fmt.Errorf("list pools: %w", err)
	}
	pools := map[string][]ipam.Pool{}
	objects := map[string]*ciliumv2alpha1.CiliumPodIPPool{}
	for i := range list.Items {
		p := &list.Items[i]
		objects[p.Name] = p
		var of []ipam.Pool
		if v4 := p.Spec.IPv4; v4 != nil && g.cfg.IPv4 {
			of = append(of, parts(v4.CIDRs, v4.MaskSize, false)...)
		}
		if v6 := p.Spec.IPv6; v6 != nil && g.cfg.IPv6 {
			of = append(of, parts(v6.CIDRs, v6.MaskSize, true)...)
		}
		pools[p.Name] = of
	}
	for name, err := range g.book.SetPools(pools) {
		g.events.Eventf(objects[name], nil, corev1.EventTypeWarning, "PoolInvalid", "Check", "nothing is given of it: %v", err)
	}
	return nil
}

// parts are a pool's ranges. What is none of the IP version becomes one that the book refuses.
func parts(cidrs []ciliumv2.CIDR, bits int32, v6 bool) (out []ipam.Pool) {
	for _, c := range cidrs {
		p, err := netip.ParsePrefix(string(c))
		if err != nil || p.Addr().Is6() != v6 {
			p = netip.Prefix{}
		}
		out = append(out, ipam.Pool{Prefix: p, Bits: int(bits)})
	}
	return out
}

// unreadable is what is wrong with an object that has something in it that is no range. Nothing of it is touched.
type unreadable struct{ text string }

func (e *unreadable) Error() string { return e.text }

func held(n *ciliumv2.CiliumNode) (ipam.Held, error) {
	out := ipam.Held{}
	for _, a := range n.Spec.IPAM.Pools.Allocated {
		for _, c := range a.CIDRs {
			p, err := netip.ParsePrefix(string(c))
			if err != nil || p != p.Masked() || p.Addr().Is4In6() {
				return nil, &unreadable{fmt.Sprintf("%q in spec.ipam.pools.allocated is no prefix", c)}
			}
			out.Add(a.Pool, p)
		}
	}
	return out, nil
}

// note takes in what an object says that its node has.
func (g *giver) note(n *ciliumv2.CiliumNode) error {
	was, is := g.known[n.Name], versionOf(n)
	if was.uid == is.uid && is.revision < was.revision {
		return errBehind
	}
	has, err := held(n)
	if err != nil {
		return err
	}
	if err := g.book.Adopt(n.Name, has); err != nil {
		return &unreadable{err.Error()}
	}
	if was.uid != "" && was.uid != is.uid { // somebody has deleted the object of a node that lives: it gets back what it had
		g.unwritten[n.Name] = g.book.Held(n.Name)
	}
	g.known[n.Name] = is
	return nil
}

// take is note, and takes back what the object says no more. Whether that is so, or the cache is only behind, the API server knows.
func (g *giver) take(ctx context.Context, n *ciliumv2.CiliumNode) error {
	if err := g.note(n); err != nil {
		return err
	}
	if len(g.missing(n)) == 0 {
		return nil
	}
	var now ciliumv2.CiliumNode
	if err := g.server.Get(ctx, client.ObjectKey{Name: n.Name}, &now); err != nil {
		return client.IgnoreNotFound(err)
	}
	*n = now
	if err := g.note(n); err != nil {
		return err
	}
	for pool, ranges := range g.missing(n) {
		for _, p := range ranges {
			if !slices.Contains(g.unwritten[n.Name][pool], p) {
				g.book.Free(n.Name, pool, p)
			}
		}
	}
	return nil
}

// missing are the blocks in the book that an object does not have.
func (g *giver) missing(n *ciliumv2.CiliumNode) ipam.Held {
	has, err := held(n)
	if err != nil {
		return nil
	}
	out := g.book.Held(n.Name)
	for pool, ranges := range has {
		for _, p := range ranges {
			out.Remove(pool, p)
		}
	}
	return out
}

// release frees the blocks of nodes that are gone: of which there is neither this object nor a Node, for as long as there is one its
// agent may run, and will say again what it has.
func (g *giver) release(ctx context.Context, there []ciliumv2.CiliumNode) error {
	names := make(map[string]bool, len(there))
	for i := range there {
		names[there[i].Name] = true
	}
	for _, name := range g.book.Nodes() {
		if names[name] {
			continue
		}
		gone := true
		for _, o := range []client.Object{&ciliumv2.CiliumNode{}, &corev1.Node{}} {
			err := g.server.Get(ctx, client.ObjectKey{Name: name}, o)
			if err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("look for node %s: %w", name, err)
			}
			gone = gone && err != nil
		}
		if gone {
			g.book.Release(name)
			delete(g.known, name)
			delete(g.unwritten, name)
		}
	}
	return nil
}

// give lets a node have what it asks for.
func (g *giver) give(n *ciliumv2.CiliumNode) error {
	var errs error
	for _, r := range n.Spec.IPAM.Pools.Requested {
		for _, v := range []struct {
			v6     bool
			needed int32
		}{{false, r.Needed.IPv4}, {true, r.Needed.IPv6}} {
			given, err := g.book.Give(n.Name, r.Pool, v.v6, int(v.needed))
			for _, p := range given {
				if g.unwritten[n.Name] == nil {
					g.unwritten[n.Name] = ipam.Held{}
				}
				g.unwritten[n.Name].Add(r.Pool, p)
			}
			errs = errors.Join(errs, err)
		}
	}
	return errs
}

// write makes the object say what the node has.
func (g *giver) write(ctx context.Context, n *ciliumv2.CiliumNode) error {
	lacks := g.missing(n)
	if len(lacks) == 0 {
		delete(g.unwritten, n.Name)
		return nil
	}
	old := n.DeepCopy()
	all := g.book.Held(n.Name)
	n.Spec.IPAM.Pools.Allocated = nil
	for _, pool := range slices.Sorted(maps.Keys(all)) {
		a := ciliumv2.PoolAllocation{Pool: pool}
		for _, p := range all[pool] {
			a.CIDRs = append(a.CIDRs, ciliumv2.CIDR(p.String()))
		}
		n.Spec.IPAM.Pools.Allocated = append(n.Spec.IPAM.Pools.Allocated, a)
	}
	// The list is written as a whole, so it has to be the one that was read: the node takes blocks out of it.
	err := g.c.Patch(ctx, n, client.MergeFromWithOptions(old, client.MergeFromWithOptimisticLock{}))
	if err == nil {
		delete(g.unwritten, n.Name)
		g.known[n.Name] = versionOf(n)
		for _, pool := range slices.Sorted(maps.Keys(lacks)) {
			g.events.Eventf(n, nil, corev1.EventTypeNormal, "PodCIDRsAssigned", "Assign", "blocks of pool %s: %v", pool, lacks[pool])
		}
	}
	return client.IgnoreNotFound(err)
}
