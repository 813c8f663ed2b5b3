package maps

import (
	"net/netip"
	"testing"
)

func TestIPCacheKeyRoundTrip(t *testing.T) {
	for in, bits := range map[string]uint32{
		"10.1.2.3/32":     32 + 128,
		"10.0.0.0/8":      32 + 104,
		"0.0.0.0/0":       32 + 96,
		"::/0":            32,
		"fd00::/64":       32 + 64,
		"fd00::1/128":     32 + 128,
		"::ffff:0:0:0/64": 32 + 64,
	} {
		p := netip.MustParsePrefix(in).Masked()
		k := IPCacheKeyFrom(p)
		if k.Prefixlen != bits {
			t.Errorf("%s: prefixlen %d, want %d", in, k.Prefixlen, bits)
		}
		if got := k.Prefix(); got != p {
			t.Errorf("%s: back as %s", in, got)
		}
	}
}

func TestAddrRoundTrip(t *testing.T) {
	for _, in := range []string{"10.1.2.3", "fd00::1", "0.0.0.0"} {
		a := netip.MustParseAddr(in)
		if got := AddrFrom(a).Netip(); got != a {
			t.Errorf("%s: back as %s", a, got)
		}
	}
	if AddrFrom(netip.Addr{}) != (Addr{}) || (Addr{}).Netip().IsValid() {
		t.Error("no address is not the zero row value")
	}
}
