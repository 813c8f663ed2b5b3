package lbipam

import (
	"cmp"
	"net/netip"
	"slices"
)

// Port is a port that a service is reached at.
type Port struct {
	Protocol string
	Number   int32
}

// Service is what a service of type LoadBalancer wants, and has.
type Service struct {
	Namespace, Name string
	Created         int64
	Labels          map[string]string

	IPv4, IPv6 bool // IP versions wanted
	All        bool // with one of them only it is not satisfied
	Requested  []netip.Addr
	Invalid    string // what is wrong with the request, "" if nothing is: then nothing new is given

	Ports       []Port
	SharingKey  string   // with whom it would share an address, "" with nobody
	SharingWith []string // namespaces besides its own with which it would; "*" all
	Local       bool     // traffic stays on the node where it comes in,
	Selector    string   // so the workloads behind have to be the same

	Has []netip.Addr
}

// Key names it.
func (s *Service) Key() string { return s.Namespace + "/" + s.Name }

func (s *Service) wants(a netip.Addr) bool {
	if a.Is6() {
		return s.IPv6
	}
	return s.IPv4
}

// shares says whether two services may have the same address.
func (s *Service) shares(o *Service) bool {
	switch {
	case s.SharingKey == "" || s.SharingKey != o.SharingKey:
		return false
	case s.Namespace != o.Namespace && (!s.invites(o.Namespace) || !o.invites(s.Namespace)):
		return false
	case (s.Local || o.Local) && (s.Local != o.Local || s.Selector != o.Selector):
		return false
	}
	return !slices.ContainsFunc(s.Ports, func(p Port) bool { return slices.Contains(o.Ports, p) })
}

func (s *Service) invites(namespace string) bool {
	return slices.Contains(s.SharingWith, "*") || slices.Contains(s.SharingWith, namespace)
}

func older(a, b *Service) int {
	return cmp.Or(cmp.Compare(a.Created, b.Created), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}
