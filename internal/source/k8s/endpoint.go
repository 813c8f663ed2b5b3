package k8s

import (
	"cmp"
	"context"
	"encoding/json"
	"net/netip"
	"reflect"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/table"
)

// Endpoints is who lives where: a CiliumEndpoint for each pod.
type Endpoints struct {
	s      *Store
	tab    *table.Table[netip.Prefix, model.IPEntry]
	writer *writer

	// Of the watch alone.
	has    map[name]claim
	rivals map[netip.Prefix]map[name]model.IPEntry // who says to have an address that others have too: one pod goes, the next comes

	mu       sync.Mutex
	mine     map[name]json.RawMessage // CiliumEndpoints of this node, their status as it is
	declared bool                     // Replace has said what is ours
}

// claim is what a CiliumEndpoint says to have.
type claim struct {
	since    int64
	prefixes []netip.Prefix
}

func newEndpoints(s *Store) *Endpoints {
	p := &Endpoints{s: s, tab: table.New[netip.Prefix, model.IPEntry]("endpoint addresses", table.Prefix),
		has: map[name]claim{}, rivals: map[netip.Prefix]map[name]model.IPEntry{}, mine: map[name]json.RawMessage{}}
	p.writer = newWriter(s, s.clients.cilium, "ciliumendpoints", p.stale)
	return p
}

// Table holds the addresses that other nodes published, with the address of their node in Tunnel. This node's own are not in it.
func (p *Endpoints) Table() *table.Table[netip.Prefix, model.IPEntry] { return p.tab }

func (p *Endpoints) follow() {
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
			p.set(x, n, o)
		}
		for n := range p.has {
			if !there[n] {
				p.set(x, n, nil)
			}
		}
	})
	p.tab.SetComplete()
	for _, o := range all {
		p.own(name{o.Namespace, o.Name}, o)
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
		p.own(n, nil)
	}
	p.dropLeft()
}

func (p *Endpoints) take(o *ciliumv2.CiliumEndpoint, gone bool) {
	n := name{o.Namespace, o.Name}
	if gone {
		o = nil
	}
	p.tab.Update(func(x *table.Txn[netip.Prefix, model.IPEntry]) { p.set(x, n, o) })
	p.own(n, o)
}

// ours says whether an object is about a workload of this node.
func (p *Endpoints) ours(o *ciliumv2.CiliumEndpoint) bool {
	if o == nil || o.Status.Networking == nil {
		return false
	}
	ip, err := netip.ParseAddr(o.Status.Networking.Node)
	return err == nil && slices.Contains(p.s.cfg.Addrs, ip)
}

// set brings one object's addresses into the table; nil: it is gone.
func (p *Endpoints) set(x *table.Txn[netip.Prefix, model.IPEntry], n name, o *ciliumv2.CiliumEndpoint) {
	var entries []model.IPEntry
	var since int64
	if o != nil && !p.ours(o) {
		entries, since = p.entries(o), o.CreationTimestamp.UnixNano()
	}
	old := p.has[n]
	delete(p.has, n)
	for _, prefix := range old.prefixes {
		if !slices.ContainsFunc(entries, func(e model.IPEntry) bool { return e.Prefix == prefix }) {
			p.leave(x, n, prefix)
		}
	}
	if len(entries) == 0 {
		return
	}
	c := claim{since: since, prefixes: make([]netip.Prefix, len(entries))}
	for i, e := range entries {
		c.prefixes[i] = e.Prefix
	}
	p.has[n] = c
	for _, e := range entries {
		p.enter(x, n, e)
	}
}

func ownerOf(e model.IPEntry) name { return name{e.Namespace, e.Name} }

// enter gives an address to who claims it, or lets it be decided where others claim it too.
func (p *Endpoints) enter(x *table.Txn[netip.Prefix, model.IPEntry], n name, e model.IPEntry) {
	old, had := x.Get(e.Prefix)
	rivals := p.rivals[e.Prefix]
	if had && rivals == nil && ownerOf(old) != n {
		rivals = map[name]model.IPEntry{ownerOf(old): old}
		p.rivals[e.Prefix] = rivals
	}
	if rivals != nil {
		rivals[n] = e
		p.decide(x, e.Prefix)
	} else if !had || !reflect.DeepEqual(old, e) {
		x.Set(e.Prefix, e)
	}
}

// leave takes an address from who claimed it.
func (p *Endpoints) leave(x *table.Txn[netip.Prefix, model.IPEntry], n name, prefix netip.Prefix) {
	rivals := p.rivals[prefix]
	if rivals == nil {
		x.Delete(prefix)
		return
	}
	delete(rivals, n)
	p.decide(x, prefix)
	if len(rivals) == 1 {
		delete(p.rivals, prefix)
	}
}

// decide says who has an address that several claim: the younger one.
func (p *Endpoints) decide(x *table.Txn[netip.Prefix, model.IPEntry], prefix netip.Prefix) {
	var who name
	for n := range p.rivals[prefix] {
		if who == (name{}) || cmp.Or(cmp.Compare(p.has[n].since, p.has[who].since), cmp.Compare(n.String(), who.String())) > 0 {
			who = n
		}
	}
	best := p.rivals[prefix][who]
	if old, ok := x.Get(prefix); !ok || !reflect.DeepEqual(old, best) {
		x.Set(prefix, best)
	}
}

// publishable says whether an identity may come from another node for a workload. Never host, world or the like: that would be a
// way around policy.
func publishable(id model.IdentityID) bool {
	return !id.Local() && (id >= model.IdentityUserMin || id == model.IdentityHealth || id == model.IdentityInit)
}

// entries reads an object's addresses. One that cannot be believed has none.
func (p *Endpoints) entries(o *ciliumv2.CiliumEndpoint) (out []model.IPEntry) {
	st := &o.Status
	if st.Identity == nil || st.Networking == nil {
		return nil // its agent is not so far yet
	}
	refuse := func(why string) []model.IPEntry {
		p.s.log.Warn("CiliumEndpoint not used", "namespace", o.Namespace, "name", o.Name, "err", why)
		return nil
	}
	node, err := netip.ParseAddr(st.Networking.Node)
	id := model.IdentityID(st.Identity.ID)
	switch {
	case err != nil || node.Zone() != "":
		return refuse("no address of its node")
	case st.Identity.ID < 0 || st.Identity.ID != int64(id) || !publishable(id):
		return refuse("its identity is not for other nodes")
	}
	for _, pair := range st.Networking.Addressing {
		for _, text := range []string{pair.IPv4, pair.IPv6} {
			if text == "" {
				continue
			}
			ip, err := netip.ParseAddr(text)
			if err != nil || ip.Zone() != "" || ip.Is4In6() {
				return refuse("address " + text)
			}
			e := model.IPEntry{Prefix: netip.PrefixFrom(ip, ip.BitLen()), Identity: id, Tunnel: node.Unmap(), Source: model.IPSourceCustomResource, NoMasq: true,
				Name: o.Name, Namespace: o.Namespace}
			for _, np := range st.NamedPorts {
				if proto, err := model.ParseServiceProto(np.Protocol); err == nil && np.Port > 0 && np.Port <= 65535 {
					e.NamedPorts = append(e.NamedPorts, model.NamedPort{Name: np.Name, Port: uint16(np.Port), Proto: proto})
				}
			}
			out = append(out, e)
		}
	}
	return out
}

// own keeps account of this node's objects, and has those written again that are not as declared.
func (p *Endpoints) own(n name, o *ciliumv2.CiliumEndpoint) {
	p.mu.Lock()
	old, had := p.mine[n]
	if !p.ours(o) {
		delete(p.mine, n)
		p.mu.Unlock()
		if had || p.writer.declared(n) {
			p.writer.disturbed(n)
		}
		return
	}
	status, err := json.Marshal(&o.Status)
	p.mine[n] = status
	declared := p.declared
	p.mu.Unlock()
	if err != nil || had && string(old) != string(status) && p.writer.declared(n) {
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
