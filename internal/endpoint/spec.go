package endpoint

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/hypha-net/hypha/internal/model"
)

// DefaultNamespace is where workloads belong that name none.
const DefaultNamespace = "default"

// Key names an attachment: CNI's container id and the interface inside.
type Key struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"interface"`
}

// String is the form of the selector "cni-attachment-id".
func (k Key) String() string { return k.ContainerID + ":" + k.IfName }

// Spec is what a caller asks for.
type Spec struct {
	ContainerID string            `json:"containerID"`
	NetNS       string            `json:"netns"` // path of the workload's network namespace
	IfName      string            `json:"interface"`
	Network     string            `json:"network,omitempty"` // CNI network, "" outside CNI
	Name        string            `json:"name"`              // default: the container id
	Namespace   string            `json:"namespace"`         // default: DefaultNamespace
	Labels      []string          `json:"labels,omitempty"`  // "[source:]key[=value]"
	NamedPorts  []model.NamedPort `json:"namedPorts,omitempty"`
	MAC         string            `json:"mac,omitempty"` // wished
	IPv4        netip.Addr        `json:"ipv4,omitzero"` // wished
	IPv6        netip.Addr        `json:"ipv6,omitzero"`
	IPv4Pool    string            `json:"ipv4Pool,omitempty"` // to have the address from, where pools have names
	IPv6Pool    string            `json:"ipv6Pool,omitempty"`
	MTU         int               `json:"mtu,omitempty"` // bytes; default: the node's
}

// Key is the attachment the spec is about.
func (s *Spec) Key() Key { return Key{s.ContainerID, s.IfName} }

// The limits of what callers may hand in: every one of these strings ends in file names, map rows or store keys.
var (
	containerID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,252}$`) // CNI specification
	workload    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,252}$`)
	namespace   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	poolName    = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
	portName    = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?$`) // IANA_SVC_NAME, in Kubernetes' reading
	letter      = regexp.MustCompile(`[a-z]`)
)

const (
	minMTU = 1280 // IPv6's
	maxMTU = 65535
)

// complete fills in defaults and sorts, so that equal requests compare equal, and refuses what is not valid.
func (s *Spec) complete() error {
	if err := s.checkKey(); err != nil {
		return err
	}
	if s.Name == "" {
		s.Name = s.ContainerID
	}
	if s.Namespace == "" {
		s.Namespace = DefaultNamespace
	}
	if !workload.MatchString(s.Name) {
		return fmt.Errorf("%w: name %q: want letters, digits, '-', '_' and '.', beginning with a letter or digit", ErrInvalid, s.Name)
	}
	if !namespace.MatchString(s.Namespace) {
		return fmt.Errorf("%w: namespace %q: want at most 63 small letters, digits and '-'", ErrInvalid, s.Namespace)
	}
	if !filepath.IsAbs(s.NetNS) || filepath.Clean(s.NetNS) != s.NetNS || strings.ContainsFunc(s.NetNS, control) {
		return fmt.Errorf("%w: network namespace %q: want a clean absolute path", ErrInvalid, s.NetNS)
	}
	if s.MAC != "" {
		mac, err := net.ParseMAC(s.MAC)
		if err != nil || len(mac) != 6 || mac[0]&1 != 0 || slices.Equal(mac, make(net.HardwareAddr, 6)) {
			return fmt.Errorf("%w: MAC address %q: want a unicast Ethernet address", ErrInvalid, s.MAC)
		}
		s.MAC = mac.String()
	}
	s.IPv4, s.IPv6 = s.IPv4.Unmap(), s.IPv6.WithZone("")
	if s.IPv4.IsValid() && !s.IPv4.Is4() || s.IPv6.IsValid() && (!s.IPv6.Is6() || s.IPv6.Is4In6()) {
		return fmt.Errorf("%w: addresses %s and %s: want one of each version", ErrInvalid, s.IPv4, s.IPv6)
	}
	for _, pool := range []string{s.IPv4Pool, s.IPv6Pool} {
		if pool != "" && !poolName.MatchString(pool) {
			return fmt.Errorf("%w: pool %q: want small letters, digits, '-' and '.'", ErrInvalid, pool)
		}
	}
	if s.MTU != 0 && (s.MTU < minMTU || s.MTU > maxMTU) {
		return fmt.Errorf("%w: MTU %d: want %d to %d", ErrInvalid, s.MTU, minMTU, maxMTU)
	}
	slices.Sort(s.Labels)
	return s.checkPorts()
}

func (s *Spec) checkKey() error {
	if !containerID.MatchString(s.ContainerID) {
		return fmt.Errorf("%w: container id %q: want letters, digits, '-', '_' and '.', beginning with a letter or digit", ErrInvalid, s.ContainerID)
	}
	if s.IfName == "" || len(s.IfName) > 15 || s.IfName == "." || s.IfName == ".." || s.IfName == "lo" ||
		strings.ContainsAny(s.IfName, "/:%") || strings.ContainsFunc(s.IfName, notPrintable) {
		return fmt.Errorf("%w: interface %q: not a name a device can have", ErrInvalid, s.IfName)
	}
	return nil
}

func (s *Spec) checkPorts() error {
	type place struct {
		name  string
		proto uint8
	}
	seen := map[place]bool{}
	for _, p := range s.NamedPorts {
		if !portName.MatchString(p.Name) || !letter.MatchString(p.Name) || strings.Contains(p.Name, "--") {
			return fmt.Errorf("%w: port name %q: want at most 15 small letters, digits and '-', at least one letter", ErrInvalid, p.Name)
		}
		if p.Port == 0 || !slices.Contains([]uint8{protoTCP, protoUDP, protoSCTP}, p.Proto) {
			return fmt.Errorf("%w: port %q: want a number and TCP, UDP or SCTP", ErrInvalid, p.Name)
		}
		if at := (place{p.Name, p.Proto}); seen[at] {
			return fmt.Errorf("%w: port %q is named twice", ErrInvalid, p.Name)
		} else {
			seen[at] = true
		}
	}
	slices.SortFunc(s.NamedPorts, func(a, b model.NamedPort) int {
		return strings.Compare(fmt.Sprint(a.Name, " ", a.Proto), fmt.Sprint(b.Name, " ", b.Proto))
	})
	return nil
}

// IP protocols that ports belong to.
const (
	protoTCP  = 6
	protoUDP  = 17
	protoSCTP = 132
)

// differs names the first field in which two requests for one attachment differ, "" if they are the same.
func (s *Spec) differs(t *Spec) string {
	a, b := reflect.ValueOf(*s), reflect.ValueOf(*t)
	for i := range a.NumField() {
		x, y := a.Field(i), b.Field(i)
		if x.Kind() == reflect.Slice && x.Len() == 0 && y.Len() == 0 {
			continue
		}
		if !reflect.DeepEqual(x.Interface(), y.Interface()) {
			return a.Type().Field(i).Tag.Get("json")
		}
	}
	return ""
}

func control(r rune) bool      { return r < ' ' || r == 0x7f }
func notPrintable(r rune) bool { return r <= ' ' || r >= 0x7f }
