package service

import "github.com/hypha-net/hypha/internal/model"

// zoneLabel is a node's label that names its zone.
const zoneLabel = "topology.kubernetes.io/zone"

// near parts active backends into those that this node's new flows go to and the others, by kube-proxy's rules. A service that prefers
// the same node gets this node's backends, if there are any. Else, where every backend says for which zones it is, and at least
// one is for this node's, those: were one without, or none for here, the hints would be half of a change, and all get flows.
func (b *Balancer) near(s *model.Service, active []model.Backend) (near, far []model.Backend) {
	if s.Prefer == model.PreferSameNode {
		if near, far = part(active, b.here); len(near) > 0 {
			return near, far
		}
	}
	zone, _ := b.Self.Labels.Get(model.SourceAny, zoneLabel)
	if zone == "" {
		return active, nil
	}
	for i := range active {
		if hints(s, &active[i]) == "" {
			return active, nil
		}
	}
	if near, far = part(active, func(x *model.Backend) bool { return hints(s, x).Has(zone) }); len(near) == 0 {
		return active, nil
	}
	return near, far
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
