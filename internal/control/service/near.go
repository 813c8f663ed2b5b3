package service

import "github.com/hypha-net/hypha/internal/model"

// zoneLabel is a node's label that names its zone.
const zoneLabel = "topology.kubernetes.io/zone"

// zone is the zone of a node, "" if it does not say.
func zone(n *model.Node) string {
	z, _ := n.Labels.Get(model.SourceAny, zoneLabel)
	return z
}

// nearby says whether a service's new flows stay near: those of one that prefers it do, others where the node follows hints.
func (b *Balancer) nearby(s *model.Service) bool { return b.Topology || s.Prefer != model.PreferNone }

// near parts active backends into those that this node's new flows go to and the others, by kube-proxy's rules. A service that prefers
// the same node gets this node's backends, if there are any, and any service those that are hinted for it. Else it gets those that are
// hinted for the node's zone.
func (b *Balancer) near(s *model.Service, active []model.Backend) (near, far []model.Backend) {
	if s.Prefer == model.PreferSameNode {
		if near, far = part(active, b.here); len(near) > 0 {
			return near, far
		}
	}
	if near, far = hinted(active, b.Self.Name, func(x *model.Backend) model.Zones { return x.NodeHints }); len(near) > 0 {
		return near, far
	}
	if near, far = hinted(active, zone(&b.Self), func(x *model.Backend) model.Zones { return hints(s, x) }); len(near) > 0 {
		return near, far
	}
	return active, nil
}

// hinted are those for a place, where every backend says for which places it is, and at least one is for this. Were one without, or
// none for here, the hints would be half of a change: then near is empty.
func hinted(active []model.Backend, place string, of func(*model.Backend) model.Zones) (near, far []model.Backend) {
	if place == "" {
		return nil, active
	}
	for i := range active {
		if of(&active[i]) == "" {
			return nil, active
		}
	}
	return part(active, func(x *model.Backend) bool { return of(x).Has(place) })
}

// hints are the zones that a backend is for. Who makes services by hand and prefers what is close need not say them: they are then
// the backend's own, which is what the cluster's controller makes of such a preference.
func hints(s *model.Service, b *model.Backend) model.Zones {
	if b.Hints == "" && s.Prefer != model.PreferNone {
		return model.NewZones(b.Zone)
	}
	return b.Hints
}

func part(all []model.Backend, first func(*model.Backend) bool) (yes, no []model.Backend) {
	for i := range all {
		if first(&all[i]) {
			yes = append(yes, all[i])
		} else {
			no = append(no, all[i])
		}
	}
	return yes, no
}
