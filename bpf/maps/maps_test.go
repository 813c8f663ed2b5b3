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

func TestPrefilterKeyRoundTrip(t *testing.T) {
	for in, want := range map[string]PrefilterKey{
		"10.1.0.0/16":      {Prefixlen: 32 + 112, Family: FamilyIPv4},
		"0.0.0.0/0":        {Prefixlen: 32 + 96, Family: FamilyIPv4},
		"::/0":             {Prefixlen: 32, Family: FamilyIPv6},
		"::/96":            {Prefixlen: 32 + 96, Family: FamilyIPv6},
		"2001:db8:7::/127": {Prefixlen: 32 + 127, Family: FamilyIPv6},
	} {
		p := netip.MustParsePrefix(in)
		want.Addr = AddrFrom(p.Addr())
		k := PrefilterKeyFrom(p)
		if k != want {
			t.Errorf("%s: %+v, want %+v", in, k, want)
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
