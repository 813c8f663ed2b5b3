package k8s

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8slabels "k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	ciliumv2alpha1 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2alpha1"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/source/state"
	"github.com/hypha-net/hypha/internal/table"
)

// PodPool is a pool of addresses for pods.
type PodPool struct {
	Name            string
	IPv4, IPv6      bool               // versions that it has
	NoMasq          bool               // its addresses leave the cluster as they are
	pods, namespace k8slabels.Selector // of whom it is without being named; nil: not asked
}

func (p *PodPool) has(v6 bool) bool { return v6 && p.IPv6 || !v6 && p.IPv4 }

// PoolShare is what a node has of the pools.
type PoolShare struct {
	Blocks map[string][]netip.Prefix // by pool
	Error  string                    // of the operator: why it has not what it asks for
}

// PoolDemand is how many addresses of a pool a node needs.
type PoolDemand struct{ IPv4, IPv6 int }

// PodPools are the pools, and this node's share in them.
type PodPools struct {
	s     *Store
	pools *table.Table[string, PodPool]
	share *table.Table[string, PoolShare]
}

func newPodPools(s *Store) *PodPools {
	return &PodPools{s: s, pools: table.New[string, PodPool]("pools", table.String), share: table.New[string, PoolShare]("blocks of pools", table.String)}
}

// Table holds the pools by name.
func (p *PodPools) Table() *table.Table[string, PodPool] { return p.pools }

// Shares holds what this node has, under its name.
func (p *PodPools) Shares() *table.Table[string, PoolShare] { return p.share }

// follow follows the pools, where addresses are from there.
func (p *PodPools) follow() {
	if p.s.cfg.IPAM != IPAMMultiPool {
		return
	}
	follow(p.s, resource{client: p.s.clients.ciliumAlpha, name: "ciliumpodippools"}, &ciliumv2alpha1.CiliumPodIPPool{}, &sink[*ciliumv2alpha1.CiliumPodIPPool]{
		replace: func(all []*ciliumv2alpha1.CiliumPodIPPool) {
			rows := map[string]PodPool{}
			for _, o := range all {
				rows[o.Name] = p.parse(o)
			}
			replaceAll(p.pools, rows, func(a, b PodPool) bool { return reflect.DeepEqual(a, b) })
		},
		put:    func(o *ciliumv2alpha1.CiliumPodIPPool) { p.pools.Set(o.Name, p.parse(o)) },
		remove: func(o *ciliumv2alpha1.CiliumPodIPPool) { p.pools.Delete(o.Name) },
	})
}

// parse reads a pool. One whose selectors cannot be read is for those that name it.
func (p *PodPools) parse(o *ciliumv2alpha1.CiliumPodIPPool) PodPool {
	row := PodPool{Name: o.Name, IPv4: o.Spec.IPv4 != nil, IPv6: o.Spec.IPv6 != nil, NoMasq: o.Annotations[ciliumv2alpha1.AnnotationNoMasquerade] == "true"}
	var err error
	of := func(s *metav1.LabelSelector) (out k8slabels.Selector) {
		if s == nil {
			return nil
		}
		out, one := metav1.LabelSelectorAsSelector(s)
		err = errors.Join(err, one)
		return out
	}
	row.pods, row.namespace = of(o.Spec.PodSelector), of(o.Spec.NamespaceSelector)
	if err != nil {
		p.s.log.Warn("selectors of a pool not used", "pool", o.Name, "err", err)
		row.pods, row.namespace = nil, nil
	}
	return row
}

// learn takes in what the CiliumNode of this node says; nil: there is none.
func (p *PodPools) learn(o *ciliumv2.CiliumNode) {
	share := PoolShare{}
	if o != nil {
		var err error
		if share, err = shareOf(o); err != nil {
			p.s.log.Error("blocks of pools not read: they stay as they were", "err", err)
			return
		}
	}
	if old, had := p.share.Get(p.s.cfg.NodeName); !had || !reflect.DeepEqual(old, share) {
		p.share.Set(p.s.cfg.NodeName, share)
	}
}

func shareOf(o *ciliumv2.CiliumNode) (PoolShare, error) {
	share := PoolShare{Blocks: map[string][]netip.Prefix{}, Error: o.Status.IPAM.OperatorStatus.Error}
	for _, a := range o.Spec.IPAM.Pools.Allocated {
		blocks, err := podCIDRs(a.CIDRs)
		if err != nil {
			return share, fmt.Errorf("pool %s: %w", a.Pool, err)
		}
		share.Blocks[a.Pool] = append(share.Blocks[a.Pool], blocks...)
	}
	return share, nil
}

// Ask reads this node's share from the API server itself, after it has seen to it that there is something that can be answered.
func (p *PodPools) Ask(ctx context.Context) (PoolShare, error) {
	n := p.s.nodes
	if err := n.writer.put(name{name: p.s.cfg.NodeName}, n.object(model.Node{Name: p.s.cfg.NodeName, Addrs: p.s.cfg.Addrs})); err != nil {
		return PoolShare{}, err
	}
	var mine ciliumv2.CiliumNode
	if err := get(ctx, p.s.clients.cilium, "ciliumnodes", "", p.s.cfg.NodeName, &mine); err != nil {
		return PoolShare{}, fmt.Errorf("%w: %w", state.ErrUnreachable, err)
	}
	return shareOf(&mine)
}

// Request tells the operator how much of each pool this node needs.
func (p *PodPools) Request(needed map[string]PoolDemand) error {
	var out []ciliumv2.PoolRequest
	for _, pool := range slices.Sorted(maps.Keys(needed)) {
		d := needed[pool]
		out = append(out, ciliumv2.PoolRequest{Pool: pool, Needed: ciliumv2.PoolDemand{IPv4: int32(d.IPv4), IPv6: int32(d.IPv6)}})
	}
	n := p.s.nodes
	n.mu.Lock()
	n.requested = out
	last := n.last
	n.mu.Unlock()
	if last == nil {
		return nil // Ask writes it
	}
	return n.Publish(*last)
}

// Change gives blocks back, and claims others that this node has and that its object has lost. It changes what the API server has at
// this moment, or nothing.
func (p *PodPools) Change(ctx context.Context, claim, giveBack map[string][]netip.Prefix) error {
	doing := "write blocks of pools"
	var mine ciliumv2.CiliumNode
	if err := get(ctx, p.s.clients.cilium, "ciliumnodes", "", p.s.cfg.NodeName, &mine); err != nil {
		return wrap(doing, err)
	}
	share, err := shareOf(&mine)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	for pool, blocks := range claim {
		for _, b := range blocks {
			if !slices.Contains(share.Blocks[pool], b) {
				share.Blocks[pool] = append(share.Blocks[pool], b)
			}
		}
	}
	for pool, blocks := range giveBack {
		share.Blocks[pool] = slices.DeleteFunc(share.Blocks[pool], func(b netip.Prefix) bool { return slices.Contains(blocks, b) })
	}
	allocated := []ciliumv2.PoolAllocation{}
	for _, pool := range slices.Sorted(maps.Keys(share.Blocks)) {
		a := ciliumv2.PoolAllocation{Pool: pool}
		for _, b := range share.Blocks[pool] {
			a.CIDRs = append(a.CIDRs, ciliumv2.CIDR(b.String()))
		}
		if a.CIDRs != nil {
			allocated = append(allocated, a)
		}
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": mine.ResourceVersion},
		"spec": map[string]any{"ipam": map[string]any{"pools": map[string]any{"allocated": allocated}}}})
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return wrap(doing, p.s.clients.cilium.Patch(types.MergePatchType).Resource("ciliumnodes").Name(p.s.cfg.NodeName).Body(body).Do(ctx).Error())
}

// Choose says from which pools a pod's addresses are: those that it names, or its namespace, or those that select it, or the default one.
func (p *PodPools) Choose(pod *Pod) (v4, v6 string, err error) {
	if v4, err = p.choose(pod, false); err != nil {
		return "", "", err
	}
	v6, err = p.choose(pod, true)
	return v4, v6, err
}

func (p *PodPools) choose(pod *Pod, v6 bool) (string, error) {
	if named := pod.pools.of(v6); named != "" {
		return named, nil
	}
	own, around := k8slabels.Set{}, k8slabels.Set{}
	for _, l := range pod.Labels {
		own[l.Key] = l.Value
	}
	for _, l := range pod.Facts {
		if key, ok := strings.CutPrefix(l.Key, model.KeyNamespaceLabels+"."); ok {
			around[key] = l.Value
		}
	}
	own["io.kubernetes.pod.namespace"], own["io.kubernetes.pod.name"] = pod.Namespace, pod.Name
	var found []string
	for name, pool := range p.pools.Snapshot().All() {
		selects := pool.pods != nil || pool.namespace != nil
		if selects && pool.has(v6) && (pool.pods == nil || pool.pods.Matches(own)) && (pool.namespace == nil || pool.namespace.Matches(around)) {
			found = append(found, name)
		}
	}
	switch {
	case len(found) > 1:
		return "", fmt.Errorf("more than one pool selects pod %s/%s: %s", pod.Namespace, pod.Name, strings.Join(found, ", "))
	case len(found) == 1:
		return found[0], nil
	case pod.pools.match:
		return "", fmt.Errorf("no pool selects pod %s/%s, and its annotation %s refuses the default one", pod.Namespace, pod.Name, ciliumv2alpha1.AnnotationRequireMatch)
	}
	return p.s.cfg.DefaultPool, nil
}

// poolWish is what annotations say about pools.
type poolWish struct {
	v4, v6 string
	match  bool // none but one that selects or is named
}

func (w *poolWish) of(v6 bool) string {
	if v6 {
		return w.v6
	}
	return w.v4
}

// poolsOf reads annotations.
func poolsOf(annotations map[string]string) poolWish {
	w := poolWish{v4: annotations[ciliumv2alpha1.AnnotationIPv4Pool], v6: annotations[ciliumv2alpha1.AnnotationIPv6Pool],
		match: annotations[ciliumv2alpha1.AnnotationRequireMatch] == "true"}
	if both := annotations[ciliumv2alpha1.AnnotationPool]; both != "" {
		w = w.or(poolWish{v4: both, v6: both})
	}
	return w
}

// or is what a pod's wish comes to in a namespace that has one, too.
func (w poolWish) or(around poolWish) poolWish {
	if w.v4 == "" {
		w.v4 = around.v4
	}
	if w.v6 == "" {
		w.v6 = around.v6
	}
	w.match = w.match || around.match
	return w
}
