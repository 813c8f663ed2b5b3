package lbipam

import (
	"fmt"
	"net/netip"
	"slices"
)

// Reasons of an answer.
const (
	ReasonSatisfied = "satisfied"
	ReasonNoPool    = "no_pool"
	ReasonOutOfIPs  = "out_of_ips"
	ReasonTaken     = "already_allocated"
	ReasonOutside   = "pool_selector_mismatch"
	ReasonRequest   = "invalid_request"
)

// Answer is what a service shall have.
type Answer struct {
	IPs             []netip.Addr // IPv4 first, as requested or in order
	Reason, Message string
}

// Satisfied says whether the service has all that it wants.
func (a *Answer) Satisfied() bool { return a.Reason == ReasonSatisfied }

// Decide says what each service shall have, by its key, and how the pools fare, by name.
func Decide(pools []Pool, services []Service) (map[string]Answer, map[string]PoolState) {
	d := &decision{pools: read(pools), used: map[netip.Addr][]*Service{}, keys: map[string][]netip.Addr{}, gets: map[*Service][]netip.Addr{}}
	all := make([]*Service, len(services))
	for i := range services {
		all[i] = &services[i]
	}
	slices.SortFunc(all, older)
	for _, s := range all {
		d.keep(s)
	}
	answers := make(map[string]Answer, len(all))
	for _, s := range all {
		if len(s.Requested) > 0 {
			answers[s.Key()] = d.answer(s, d.request)
		}
	}
	for _, s := range all {
		if len(s.Requested) == 0 {
			answers[s.Key()] = d.answer(s, d.choose)
		}
	}
	for _, s := range all { // once more: only now it is known who has what others asked for
		if answers[s.Key()].Reason == ReasonTaken {
			answers[s.Key()] = d.answer(s, d.request)
		}
	}
	states := make(map[string]PoolState, len(pools))
	for _, p := range d.pools {
		states[p.Name] = p.count(d.used)
	}
	return answers, states
}

type decision struct {
	pools []*pool
	used  map[netip.Addr][]*Service
	keys  map[string][]netip.Addr // addresses in use by sharing key, in the order in which they were taken
	gets  map[*Service][]netip.Addr
}

// keep lets a service have what it has, if it may.
func (d *decision) keep(s *Service) {
	for _, a := range s.Has {
		if len(s.Requested) > 0 && !slices.Contains(s.Requested, a) || len(s.Requested) == 0 && d.has(s, a.Is6()) {
			continue
		}
		mine := func(p *pool) bool { return p.holds(a) && p.selects(s) }
		if s.wants(a) && slices.ContainsFunc(d.pools, mine) && d.open(s, a) {
			d.take(s, a)
		}
	}
}

// has says whether a service has got an address of an IP version.
func (d *decision) has(s *Service, v6 bool) bool {
	return slices.ContainsFunc(d.gets[s], func(a netip.Addr) bool { return a.Is6() == v6 })
}

// open says whether a service may have an address beside those that do.
func (d *decision) open(s *Service, a netip.Addr) bool {
	return !slices.Contains(d.used[a], s) && d.against(s, a) == nil
}

// against is the oldest service that has an address and does not share it with this one.
func (d *decision) against(s *Service, a netip.Addr) (by *Service) {
	for _, o := range d.used[a] {
		if o != s && !s.shares(o) && (by == nil || older(o, by) < 0) {
			by = o
		}
	}
	return by
}

func (d *decision) take(s *Service, a netip.Addr) {
	if s.SharingKey != "" && !slices.Contains(d.keys[s.SharingKey], a) {
		d.keys[s.SharingKey] = append(d.keys[s.SharingKey], a)
	}
	d.used[a] = append(d.used[a], s)
	d.gets[s] = append(d.gets[s], a)
}

func (d *decision) answer(s *Service, serve func(*Service) (reason, message string)) Answer {
	out := Answer{Reason: ReasonRequest, Message: s.Invalid}
	if s.Invalid == "" {
		out.Reason, out.Message = serve(s)
	}
	out.IPs = slices.Clone(d.gets[s])
	slices.SortFunc(out.IPs, func(a, b netip.Addr) int {
		if len(s.Requested) > 0 {
			return slices.Index(s.Requested, a) - slices.Index(s.Requested, b)
		}
		return a.Compare(b)
	})
	return out
}

// request gives a service the addresses that it names. The first that it cannot have is the reason why it is not satisfied.
func (d *decision) request(s *Service) (reason, message string) {
	reason = ReasonSatisfied
	for _, a := range s.Requested {
		if slices.Contains(d.gets[s], a) {
			continue
		}
		r, m := d.may(s, a)
		if r == ReasonSatisfied {
			d.take(s, a)
		} else if reason == ReasonSatisfied {
			reason, message = r, m
		}
	}
	return reason, message
}

// may says whether a service can be given a certain address, and why not.
func (d *decision) may(s *Service, a netip.Addr) (reason, message string) {
	gives := func(p *pool) bool { return p.usable() && p.gives(a) }
	by := d.against(s, a)
	switch {
	case !s.wants(a):
		return ReasonRequest, fmt.Sprintf("the service has no addresses of the IP version of %s", a)
	case !slices.ContainsFunc(d.pools, gives):
		return ReasonNoPool, fmt.Sprintf("no pool gives %s: none has it, or the one that has is disabled or in conflict", a)
	case !slices.ContainsFunc(d.pools, func(p *pool) bool { return gives(p) && p.selects(s) }):
		return ReasonOutside, fmt.Sprintf("the pool of %s does not select this service", a)
	case by != nil:
		return ReasonTaken, fmt.Sprintf("%s is in use by the service %s, which does not share it with this one", a, by.Key())
	}
	return ReasonSatisfied, ""
}

// choose gives a service an address of each IP version that it wants and has not.
func (d *decision) choose(s *Service) (reason, message string) {
	got := len(d.gets[s]) > 0
	for _, v6 := range []bool{false, true} {
		if want := v6 && s.IPv6 || !v6 && s.IPv4; !want || d.has(s, v6) {
			continue
		}
		if a, r, m := d.find(s, v6); r == ReasonSatisfied {
			d.take(s, a)
			got = true
		} else {
			reason, message = r, m
		}
	}
	if reason == "" || got && !s.All {
		return ReasonSatisfied, ""
	}
	return reason, message
}

// find is an address for a service: one that others share with it, or the lowest free one of the first pool that has any.
func (d *decision) find(s *Service, v6 bool) (a netip.Addr, reason, message string) {
	if s.SharingKey != "" {
		for _, a := range d.keys[s.SharingKey] {
			if a.Is6() != v6 {
				continue
			}
			if r, _ := d.may(s, a); r == ReasonSatisfied {
				return a, ReasonSatisfied, ""
			}
		}
	}
	version, matches := 4, 0
	if v6 {
		version = 6
	}
	for _, p := range d.pools {
		if !p.usable() || !p.selects(s) || !slices.ContainsFunc(p.give, func(s span) bool { return s.first.Is6() == v6 }) {
			continue
		}
		matches++
		if a, ok := p.free(v6, func(a netip.Addr) bool { return len(d.used[a]) > 0 }); ok {
			return a, ReasonSatisfied, ""
		}
	}
	if matches == 0 {
		return a, ReasonNoPool, fmt.Sprintf("no pool with IPv%d addresses selects this service", version)
	}
	return a, ReasonOutOfIPs, fmt.Sprintf("all IPv%d addresses of the %d pools that select this service are in use", version, matches)
}
