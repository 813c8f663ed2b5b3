package k8s

import (
	"context"
	"net/netip"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/table"
)

// Endpoints is who lives where: a CiliumEndpoint for each pod, which its agent writes. What other agents wrote is read there, or in the
// slices that the operator makes of it.
type Endpoints struct {
	s      *Store
	tab    *table.Table[netip.Prefix, model.IPEntry]
	writer *writer

	// Of the watch alone.
	has    map[name]claim
	rivals map[netip.Prefix]map[name]model.IPEntry // who says to have an address that others have too: one pod goes, the next comes
	sliced *sliced                                 // nil: CiliumEndpoints are read

	mu       sync.Mutex
	mine     map[name]string // what is read of this node's endpoints
	declared bool            // Replace has said what is ours
}

func newEndpoints(s *Store) *Endpoints {
	p := &Endpoints{s: s, tab: table.New[netip.Prefix, model.IPEntry]("endpoint addresses", table.Prefix),
		has: map[name]claim{}, rivals: map[netip.Prefix]map[name]model.IPEntry{}, mine: map[name]string{}}
	if s.cfg.EndpointSlices {
		p.sliced = newSliced(p)
	}
	p.writer = newWriter(s, s.clients.cilium, "ciliumendpoints", p.stale)
	return p
}

// Table holds the addresses that other nodes published, with the address of their node in Tunnel. This node's own are not in it.
func (p *Endpoints) Table() *table.Table[netip.Prefix, model.IPEntry] { return p.tab }

func (p *Endpoints) follow() {
	if p.sliced != nil {
		p.sliced.follow()
		return
	}
	follow(p.s, resource{client: p.s.clients.cilium, name: "ciliumendpoints"}, &ciliumv2.CiliumEndpoint{}, &sink[*ciliumv2.CiliumEndpoint]{
		trim: p.trim, replace: p.replace, put: func(o *ciliumv2.CiliumEndpoint) { p.take(o, false) }, remove: func(o *ciliumv2.CiliumEndpoint) { p.take(o, true) }})
}

// trim takes away what nobody asks of another node's.
func (p *Endpoints) trim(o *ciliumv2.CiliumEndpoint) {
	if !p.ours(o) {
		o.OwnerReferences, o.Status.ExternalIdentifiers = nil, nil
		if o.Status.Identity != nil {
			o.Status.Identity.Labels = nil
		}
	}
}

func (p *Endpoints) replace(all []*ciliumv2.CiliumEndpoint) {
	there := make(map[name]bool, len(all))
	p.tab.Update(func(x *table.Txn[netip.Prefix, model.IPEntry]) {
		for _, o := range all {
			n := name{o.Namespace, o.Name}
			there[n] = true
			p.set(x, n, p.read(o))
		}
		for n := range p.has {
			if !there[n] {
				p.set(x, n, nil)
			}
		}
	})
	p.tab.SetComplete()
	for n := range there {
		p.own(n)
	}
	p.mu.Lock()
	var lost []name
	for n := range p.mine {
		if !there[n] {
			lost = append(lost, n)
		}
	}
	p.mu.Unlock()
	for _, n := range lost {
		p.own(n)
	}
	p.dropLeft()
}

func (p *Endpoints) take(o *ciliumv2.CiliumEndpoint, gone bool) {
	n := name{o.Namespace, o.Name}
	var h *heard
	if !gone {
		h = p.read(o)
	}
	p.tab.Update(func(x *table.Txn[netip.Prefix, model.IPEntry]) { p.set(x, n, h) })
	p.own(n)
}

// ours says whether an object is about a workload of this node.
func (p *Endpoints) ours(o *ciliumv2.CiliumEndpoint) bool {
	if o == nil || o.Status.Networking == nil {
		return false
	}
	ip, err := netip.ParseAddr(o.Status.Networking.Node)
	return err == nil && slices.Contains(p.s.cfg.Addrs, ip)
}

// own keeps account of this node's endpoints after what is read of one has changed, and has those written again that are not as declared.
func (p *Endpoints) own(n name) {
	said := p.has[n].own
	p.mu.Lock()
	old, had := p.mine[n]
	if said == "" {
		delete(p.mine, n)
		p.mu.Unlock()
		if had || p.writer.declared(n) {
			p.writer.disturbed(n)
		}
		return
	}
	p.mine[n] = said
	declared := p.declared
	p.mu.Unlock()
	if had && old != said && p.writer.declared(n) {
		p.writer.disturbed(n)
	}
	if declared && !p.writer.declared(n) {
		p.writer.drop(n)
	}
}

// dropLeft withdraws what an earlier run left. Until Replace has been called nothing is: a restarting agent has first to find out what
// it has.
func (p *Endpoints) dropLeft() {
	p.mu.Lock()
	var left []name
	for n := range p.mine {
		if p.declared && !p.writer.declared(n) {
			left = append(left, n)
		}
	}
	p.mu.Unlock()
	for _, n := range left {
		p.writer.drop(n)
	}
}

// stale says which object of this node is to be deleted. The address may be another node's by now: a pod of the same name.
func (p *Endpoints) stale(ctx context.Context, n name) (uid, version string, ok bool, err error) {
	var o ciliumv2.CiliumEndpoint
	if err := get(ctx, p.s.clients.cilium, "ciliumendpoints", n.namespace, n.name, &o); err != nil {
		if apierrors.IsNotFound(err) {
			return "", "", false, nil
		}
		return "", "", false, err
	}
	return string(o.UID), o.ResourceVersion, p.ours(&o), nil
}

// Publish declares that a workload lives here.
func (p *Endpoints) Publish(_ context.Context, e model.Endpoint) error {
	n, o, ok := p.object(e)
	if !ok {
		return nil
	}
	return p.writer.put(n, o)
}

// object is what the cluster is told about a workload. Identities that mean nothing elsewhere are not told.
func (p *Endpoints) object(e model.Endpoint) (name, *ciliumv2.CiliumEndpoint, bool) {
	n := name{e.Namespace, e.Name}
	if e.Identity == model.IdentityUnknown || !publishable(e.Identity) {
		return n, nil, false
	}
	o := &ciliumv2.CiliumEndpoint{TypeMeta: metav1.TypeMeta{APIVersion: ciliumv2.GroupVersion.String(), Kind: "CiliumEndpoint"}}
	o.Namespace, o.Name = e.Namespace, e.Name
	if uid := p.s.pods.uid(n); uid != "" { // it goes with the pod
		o.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: e.Name, UID: types.UID(uid)}}
	}
	pair := ciliumv2.AddressPair{}
	if e.IPv4.IsValid() {
		pair.IPv4 = e.IPv4.String()
	}
	if e.IPv6.IsValid() {
		pair.IPv6 = e.IPv6.String()
	}
	o.Status = ciliumv2.EndpointStatus{ID: int64(e.ID), State: string(model.EndpointReady),
		Identity:   &ciliumv2.EndpointIdentity{ID: int64(e.Identity), Labels: e.Labels.Strings()},
		Networking: &ciliumv2.EndpointNetworking{Addressing: []ciliumv2.AddressPair{pair}, Node: p.s.cfg.Addrs[0].String()},
		ExternalIdentifiers: &ciliumv2.EndpointIdentifiers{ContainerID: e.ContainerID, CNIAttachmentID: e.ContainerID + ":" + e.IfName,
			Namespace: e.Namespace, PodName: e.Name}}
	for _, np := range e.NamedPorts {
		o.Status.NamedPorts = append(o.Status.NamedPorts, ciliumv2.NamedPort{Name: np.Name, Port: int32(np.Port), Protocol: model.ServiceProtoName(np.Proto)})
	}
	return n, o, true
}

// Withdraw declares that a workload lives here no more.
func (p *Endpoints) Withdraw(e model.Endpoint) { p.writer.drop(name{e.Namespace, e.Name}) }

// Replace declares that exactly these workloads live here: after a restart, once they are restored. Others that this node
// published, in this run or an earlier one, are withdrawn.
func (p *Endpoints) Replace(es []model.Endpoint) error {
	keep := map[name]bool{}
	for _, e := range es {
		n, o, ok := p.object(e)
		if !ok {
			continue
		}
		keep[n] = true
		if err := p.writer.put(n, o); err != nil {
			return err
		}
	}
	for _, n := range p.writer.all() {
		if !keep[n] {
			p.writer.drop(n)
		}
	}
	p.mu.Lock()
	p.declared = true
	p.mu.Unlock()
	p.dropLeft()
	return nil
}
