package endpoint

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/hypha-net/hypha/internal/model"
)

// List returns the endpoints that a selector names, by number; none is no error. Selectors are spelled as the field does:
//
//	""  1234  cilium-local:1234  ipv4:10.0.0.1  ipv6:fd00::1  container-id:ID  container-name:NAME
//	pod-name:[NAMESPACE/]NAME  cep-name:[NAMESPACE/]NAME  cni-attachment-id:ID[:INTERFACE]
//
// Container ids may be cut short, to at least 8 characters.
func (m *Manager) List(selector string) ([]model.Endpoint, error) {
	match, err := parseSelector(selector)
	if err != nil {
		return nil, err
	}
	var out []model.Endpoint
	for _, e := range m.tab.Snapshot().All() {
		if match(&e) {
			out = append(out, e)
		}
	}
	return out, nil
}

func parseSelector(s string) (func(*model.Endpoint) bool, error) {
	if s == "" {
		return func(*model.Endpoint) bool { return true }, nil
	}
	kind, arg, found := strings.Cut(s, ":")
	if !found {
		kind, arg = "cilium-local", s
	}
	switch kind {
	case "cilium-local", "hypha-local":
		id, err := strconv.ParseUint(arg, 10, 16)
		if err != nil || id == 0 {
			return nil, fmt.Errorf("%w: endpoint %q: want a number from 1 to 65535, or kind:value (ipv4, ipv6, pod-name, "+
				"container-id, container-name, cni-attachment-id)", ErrInvalid, s)
		}
		return func(e *model.Endpoint) bool { return e.ID == uint16(id) }, nil
	case "ipv4", "ipv6":
		a, err := netip.ParseAddr(arg)
		if err != nil || a.Is4() != (kind == "ipv4") {
			return nil, fmt.Errorf("%w: endpoint %q: not such an address", ErrInvalid, s)
		}
		return func(e *model.Endpoint) bool { return e.IPv4 == a || e.IPv6 == a }, nil
	case "container-id":
		return func(e *model.Endpoint) bool { return sameContainer(e, arg) }, nil
	case "container-name":
		return func(e *model.Endpoint) bool { return e.Name == arg }, nil
	case "pod-name", "cep-name":
		ns, name, found := strings.Cut(arg, "/")
		if !found {
			ns, name = DefaultNamespace, arg
		}
		return func(e *model.Endpoint) bool { return e.Namespace == ns && e.Name == name }, nil
	case "cni-attachment-id":
		id, dev, found := strings.Cut(arg, ":")
		return func(e *model.Endpoint) bool { return sameContainer(e, id) && (!found || e.IfName == dev) }, nil
	}
	return nil, fmt.Errorf("%w: endpoint %q: unknown kind %q", ErrInvalid, s, kind)
}

func sameContainer(e *model.Endpoint, id string) bool {
	return e.ContainerID == id || len(id) >= 8 && strings.HasPrefix(e.ContainerID, id)
}
