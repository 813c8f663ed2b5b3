package v2

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// ParseCIDR reads a prefix or a bare address (then all its bits count). Bits beyond the length are cleared. IPv4 in
// IPv6 notation and zones are refused.
func ParseCIDR(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, aerr := netip.ParseAddr(s)
		if aerr != nil {
			return netip.Prefix{}, fmt.Errorf("%q is not a prefix (10.0.0.0/8, fd00::/64) or an address", s)
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if p.Addr().Zone() != "" || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q: no zones, and IPv4 is written as IPv4", s)
	}
	return p.Masked(), nil
}

// Number reads the port: a decimal number, or else (named) a service name of RFC 6335: 1 to 15 letters, digits and
// single hyphens, at least one letter.
func (p PortProtocol) Number() (n uint16, named bool, err error) {
	if p.Port == "" {
		return 0, false, fmt.Errorf("missing; want a number, \"0\" for every port, or a port's name")
	}
	if strings.Trim(p.Port, "0123456789") == "" {
		v, err := strconv.ParseUint(p.Port, 10, 16)
		if err != nil {
			return 0, false, fmt.Errorf("%q: want 0..65535", p.Port)
		}
		return uint16(v), false, nil
	}
	ok := len(p.Port) <= 15 && !strings.Contains(p.Port, "--") && p.Port[0] != '-' && p.Port[len(p.Port)-1] != '-'
	letter := false
	for _, c := range []byte(p.Port) {
		l := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		letter = letter || l
		ok = ok && (l || c >= '0' && c <= '9' || c == '-')
	}
	if !ok || !letter {
		return 0, false, fmt.Errorf("%q is neither a number nor a port's name (1 to 15 letters, digits, single hyphens)", p.Port)
	}
	return 0, true, nil
}

// Protocols are the IP protocol numbers meant; upper and lower case are alike.
func (p PortProtocol) Protocols() ([]uint8, bool) {
	switch Protocol(strings.ToUpper(string(p.Protocol))) {
	case ProtoTCP:
		return []uint8{6}, true
	case ProtoUDP:
		return []uint8{17}, true
	case ProtoSCTP:
		return []uint8{132}, true
	case ProtoAny, "":
		return []uint8{6, 17, 132}, true
	}
	return nil, false
}
