package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var byValue = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func prefixes(ss ...string) (out []netip.Prefix) {
	for _, s := range ss {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestSizes(t *testing.T) {
	for _, c := range []struct {
		ranges  []netip.Prefix
		routers string
		first   string
		count   int
	}{
		{prefixes("10.0.1.0/24"), "[10.0.1.1]", "10.0.1.2", 253},
		{prefixes("10.0.1.0/30"), "[10.0.1.1]", "10.0.1.2", 1},
		{prefixes("10.0.1.0/31"), "[10.0.1.0]", "10.0.1.1", 1},
		{prefixes("10.0.1.7/32"), "[]", "10.0.1.7", 1},
		{prefixes("10.0.1.7/32", "10.0.2.0/29"), "[10.0.2.1]", "10.0.1.7", 6},
		{prefixes("fd00::100/120"), "[fd00::101]", "fd00::102", 254},
		{prefixes("fd00::/127"), "[fd00::]", "fd00::1", 1},
		{prefixes("fd00::5/128"), "[]", "fd00::5", 1},
		{prefixes("0.0.0.0/31"), "[0.0.0.0]", "0.0.0.1", 1},
		{prefixes("255.255.255.252/30"), "[255.255.255.253]", "255.255.255.254", 1},
	} {
		a, err := New(c.ranges)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(a.Routers()); got != c.routers {
			t.Errorf("%v: routers %s, want %s", c.ranges, got, c.routers)
		}
		v6 := c.ranges[0].Addr().Is6()
		n := 0
		for ; ; n++ {
			ip, err := a.Allocate("x", "", v6)
			if errors.Is(err, ErrExhausted) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 && ip.String() != c.first {
				t.Errorf("%v: first %s, want %s", c.ranges, ip, c.first)
			}
		}
		if n != c.count {
			t.Errorf("%v: %d addresses, want %d", c.ranges, n, c.count)
		}
		if _, err := a.Allocate("x", "", !v6); !errors.Is(err, ErrNoFamily) {
			t.Errorf("%v: other family: %v", c.ranges, err)
		}
	}
}

func TestHugeRange(t *testing.T) {
	a, err := New(prefixes("fd00:1::/64"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		if _, err := a.Allocate(fmt.Sprint(i), "", true); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(a.Dump()); got != 1000 {
		t.Error(got)
	}
}

func TestAllocateIP(t *testing.T) {
	a, err := New(prefixes("10.0.1.0/24", "fd00::100/120"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		ip, owner string
		want      error
	}{
		{"10.0.1.9", "a", nil}, {"10.0.1.9", "a", nil}, {"10.0.1.9", "b", ErrInUse}, {"::ffff:10.0.1.9", "b", ErrInUse},
		{"10.0.1.0", "a", ErrReserved}, {"10.0.1.1", "a", ErrReserved}, {"10.0.1.255", "a", ErrReserved},
		{"10.0.2.1", "a", ErrOutside}, {"fd00::100", "a", ErrReserved}, {"fd00::1ff", "a", nil}, {"fd00::200", "a", ErrOutside},
	} {
		if err := a.AllocateIP(netip.MustParseAddr(c.ip), c.owner); !errors.Is(err, c.want) {
			t.Errorf("%s for %s: %v, want %v", c.ip, c.owner, err, c.want)
		}
	}
	if ip, _ := a.Allocate("c", "", false); ip.String() != "10.0.1.10" {
		t.Errorf("next is %s: not behind the restored ones", ip)
	}
	if got := fmt.Sprint(a.ReleaseOwner("a")); got != "[10.0.1.9 fd00::1ff]" {
		t.Error(got)
	}
}

func TestRestBeforeReuse(t *testing.T) {
	a, err := New(prefixes("10.0.1.0/29"))
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	for range 7 {
		ip, err := a.Allocate("x", "", false)
		if err != nil {
			t.Fatal(err)
		}
		a.Release(ip)
		seen = append(seen, ip.String())
	}
	want := []string{"10.0.1.2", "10.0.1.3", "10.0.1.4", "10.0.1.5", "10.0.1.6", "10.0.1.2", "10.0.1.3"}
	if d := cmp.Diff(want, seen); d != "" {
		t.Error(d)
	}
}

func TestBadRanges(t *testing.T) {
	for _, ps := range [][]netip.Prefix{prefixes("10.0.1.5/24"), prefixes("10.0.0.0/8", "10.1.0.0/16"), prefixes("::ffff:10.0.0.0/104"), {{}}} {
		if _, err := New(ps); err == nil {
			t.Errorf("%v accepted", ps)
		}
	}
}

// Whatever is done, no address is out twice or reserved, and all usable ones can be had.
func TestAllocatorModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.IntRange(26, 32).Draw(t, "bits")
		p := netip.PrefixFrom(netip.MustParseAddr("10.9.8.64"), bits).Masked()
		a, err := New([]netip.Prefix{p})
		if err != nil {
			t.Fatal(err)
		}
		model := map[netip.Addr]string{}
		size := 1 << (32 - bits)
		usable := max(1, size-3)
		if size == 2 {
			usable = 1
		}
		t.Repeat(map[string]func(*rapid.T){
			"allocate": func(t *rapid.T) {
				ip, err := a.Allocate("x", "", false)
				if (err != nil) != (len(model) == usable) {
					t.Fatalf("%d of %d in use: %v", len(model), usable, err)
				}
				if err != nil {
					return
				}
				if _, dup := model[ip]; dup || !p.Contains(ip) || slices.Contains(a.Routers(), ip) {
					t.Fatalf("gave out %s", ip)
				}
				model[ip] = "x"
			},
			"static": func(t *rapid.T) {
				ip := netip.AddrFrom4([4]byte{10, 9, 8, byte(rapid.IntRange(0, 255).Draw(t, "ip"))})
				err := a.AllocateIP(ip, "y")
				if old, used := model[ip]; err == nil && used && old != "y" {
					t.Fatalf("gave %s away", ip)
				}
				if err == nil {
					model[ip] = "y"
				}
			},
			"release": func(t *rapid.T) {
				for ip := range model {
					if _, ok := a.Release(ip); !ok {
						t.Fatalf("%s was not in use", ip)
					}
					delete(model, ip)
					break
				}
			},
			"": func(t *rapid.T) {
				if got := a.Dump(); len(got) != len(model) || len(got) > usable {
					t.Fatalf("%d in use, want %d of %d", len(got), len(model), usable)
				}
			},
		})
	})
}

func TestChoose(t *testing.T) {
	small := []Pool{{netip.MustParsePrefix("10.0.0.0/22"), 24}}
	for _, c := range []struct {
		name   string
		ranges Ranges
		taken  map[string]string
		prefer []netip.Prefix
		want   []netip.Prefix
		fail   bool
	}{
		{"first", Ranges{Pools: DefaultPools()}, nil, nil, prefixes("10.0.0.0/24", "fd00::/120"), false},
		{"next", Ranges{Pools: DefaultPools()}, map[string]string{"10.0.0.0/24": "b", "fd00::/120": "b"}, nil, prefixes("10.0.1.0/24", "fd00::100/120"), false},
		{"gap", Ranges{Pools: small}, map[string]string{"10.0.0.0/24": "b", "10.0.2.0/24": "c"}, nil, prefixes("10.0.1.0/24"), false},
		{"keep", Ranges{Pools: small}, map[string]string{"10.0.3.0/24": "a"}, prefixes("10.0.2.0/24"), prefixes("10.0.3.0/24"), false},
		{"prefer", Ranges{Pools: small}, nil, prefixes("10.0.2.0/24"), prefixes("10.0.2.0/24"), false},
		{"prefer taken", Ranges{Pools: small}, map[string]string{"10.0.2.0/24": "b"}, prefixes("10.0.2.0/24"), prefixes("10.0.0.0/24"), false},
		{"prefer of another size", Ranges{Pools: small}, nil, prefixes("10.0.2.0/25"), prefixes("10.0.0.0/24"), false},
		{"odd sizes", Ranges{Pools: small}, map[string]string{"10.0.0.128/25": "b", "10.0.1.7/32": "c", "10.0.2.0/24": "d"}, nil, prefixes("10.0.3.0/24"), false},
		{"wider", Ranges{Pools: small}, map[string]string{"10.0.0.0/23": "b"}, nil, prefixes("10.0.2.0/24"), false},
		{"full", Ranges{Pools: small}, map[string]string{"10.0.0.0/22": "b"}, nil, nil, true},
		{"whole pool", Ranges{Pools: []Pool{{netip.MustParsePrefix("10.0.0.0/24"), 24}}}, nil, nil, prefixes("10.0.0.0/24"), false},
		{"end of all", Ranges{Pools: []Pool{{netip.MustParsePrefix("255.255.255.0/24"), 25}}}, map[string]string{"255.255.255.0/25": "b", "255.255.255.128/25": "c"}, nil, nil, true},
		{"fixed", Ranges{Pools: DefaultPools(), Fixed: prefixes("172.16.5.0/24")}, nil, nil, prefixes("172.16.5.0/24", "fd00::/120"), false},
		{"fixed again", Ranges{Fixed: prefixes("172.16.5.0/24")}, map[string]string{"172.16.5.0/24": "a"}, nil, prefixes("172.16.5.0/24"), false},
		{"fixed overlaps", Ranges{Fixed: prefixes("172.16.0.0/16")}, map[string]string{"172.16.5.0/24": "b"}, nil, nil, true},
		{"nothing", Ranges{}, nil, nil, nil, true},
		{"bad mask", Ranges{Pools: []Pool{{netip.MustParsePrefix("10.0.0.0/24"), 16}}}, nil, nil, nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			taken := map[netip.Prefix]string{}
			for p, o := range c.taken {
				taken[netip.MustParsePrefix(p)] = o
			}
			got, err := c.ranges.Choose("a", taken, c.prefer)
			if (err != nil) != c.fail {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got, byValue); d != "" {
				t.Error(d)
			}
		})
	}
}

// Nodes that come one after the other never overlap, and the pool is used up to the last piece.
func TestChooseModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Ranges{Pools: []Pool{{netip.MustParsePrefix("10.0.0.0/27"), rapid.IntRange(27, 30).Draw(t, "bits")}}}
		taken := map[netip.Prefix]string{}
		for range rapid.IntRange(0, 4).Draw(t, "odd") {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.IntRange(0, 31).Draw(t, "addr"))}), rapid.IntRange(29, 32).Draw(t, "len")).Masked()
			taken[p] = "odd"
		}
		for i := 0; ; i++ {
			got, err := r.Choose(fmt.Sprint("n", i), taken, nil)
			if err != nil {
				break
			}
			for p := range taken {
				if p.Overlaps(got[0]) {
					t.Fatalf("%s overlaps %s", got[0], p)
				}
			}
			taken[got[0]] = fmt.Sprint("n", i)
		}
		for a := 0; a < 32; a += 1 << (32 - r.Pools[0].Bits) {
			piece := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(a)}), r.Pools[0].Bits)
			free := true
			for p := range taken {
				free = free && !p.Overlaps(piece)
			}
			if free {
				t.Fatalf("%s is free, but the pool was said to be full", piece)
			}
		}
	})
}
