package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func cluster(t testing.TB, pools ...Pool) *Cluster {
	t.Helper()
	c, err := NewCluster(pools)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCluster(t *testing.T) {
	c := cluster(t, Pool{netip.MustParsePrefix("10.0.0.0/23"), 24}, Pool{netip.MustParsePrefix("10.9.0.0/24"), 24}, Pool{netip.MustParsePrefix("fd00::/104"), 120})
	for _, s := range []struct{ do, node, ranges, want string }{
		{"adopt", "b", "10.0.0.0/24", "[10.0.0.0/24]"},
		{"give", "b", "", "[10.0.0.0/24 fd00::/120]"},
		{"give", "a", "", "[10.0.1.0/24 fd00::100/120]"},
		{"give", "a", "", "[10.0.1.0/24 fd00::100/120]"},
		{"adopt", "b", "10.0.0.0/24 fd00::/120", "[10.0.0.0/24 fd00::/120]"},
		{"give", "c", "", "[10.9.0.0/24 fd00::200/120]"},
		{"give", "d", "", "[fd00::300/120] no free /24"},
		{"adopt", "e", "10.0.1.0/25", "[10.0.1.0/25] overlaps 10.0.1.0/24 of node a"},
		{"look", "a", "", "[10.0.1.0/24 fd00::100/120] overlaps 10.0.1.0/25 of node e"},
		{"look", "b", "", "[10.0.0.0/24 fd00::/120]"},
		{"adopt", "f", "10.7.0.0/24 10.7.0.0/25", "[10.7.0.0/24 10.7.0.0/25] overlaps 10.7.0.0/24 of node f"},
		{"adopt", "f", "10.7.0.0/24", "[10.7.0.0/24]"},
		{"adopt", "g", "10.8.0.1/24", "[] host bits are set"},
		{"release", "a", "", "[]"},
		{"give", "d", "", "[fd00::300/120] no free /24"}, // e's is in it
		{"release", "e", "", "[]"},
		{"give", "d", "", "[10.0.1.0/24 fd00::300/120]"},
	} {
		var err error
		switch s.do {
		case "adopt":
			err = errors.Join(c.Adopt(s.node, prefixes(strings.Fields(s.ranges)...)), c.Conflicts()[s.node])
		case "look":
			err = c.Conflicts()[s.node]
		case "give":
			_, err = c.Give(s.node)
		case "release":
			c.Release(s.node)
		}
		held, why, _ := strings.Cut(s.want, "] ")
		if got := fmt.Sprint(c.Held(s.node)); strings.TrimSuffix(got, "]") != strings.TrimSuffix(held, "]") {
			t.Errorf("%s %s: has %s, want %s", s.do, s.node, got, s.want)
		}
		if (err != nil) != (why != "") || err != nil && !strings.Contains(err.Error(), why) {
			t.Errorf("%s %s: %v, want %q", s.do, s.node, err, why)
		}
	}
}

func TestClusterRefuses(t *testing.T) {
	for _, pools := range [][]Pool{nil, {{netip.MustParsePrefix("10.0.0.0/8"), 4}}, {{netip.MustParsePrefix("10.0.0.0/8"), 24}, {netip.MustParsePrefix("10.1.0.0/16"), 24}}} {
		if _, err := NewCluster(pools); err == nil {
			t.Errorf("%v accepted", pools)
		}
	}
}

// Nodes come, go and bring ranges along; none that was given overlaps another, none moves.
func TestClusterModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, err := NewCluster([]Pool{{netip.MustParsePrefix("10.0.0.0/26"), 28}, {netip.MustParsePrefix("10.0.1.0/27"), 28}})
		if err != nil {
			t.Fatal(err)
		}
		had := map[string]netip.Prefix{}
		t.Repeat(map[string]func(*rapid.T){
			"give": func(t *rapid.T) {
				n := fmt.Sprint(rapid.IntRange(0, 9).Draw(t, "node"))
				got, err := c.Give(n)
				switch {
				case err != nil && len(had) < 6:
					t.Fatalf("%d of 6 given: %v", len(had), err)
				case err == nil && (len(got) != 1 || had[n].IsValid() && got[0] != had[n]):
					t.Fatalf("%s has %v, had %v", n, got, had[n])
				case err == nil:
					had[n] = got[0]
				}
			},
			"restart": func(t *rapid.T) {
				c, _ = NewCluster(c.pools)
				for n, p := range had {
					if err := c.Adopt(n, []netip.Prefix{p}); err != nil {
						t.Fatal(err)
					}
				}
			},
			"release": func(t *rapid.T) {
				n := fmt.Sprint(rapid.IntRange(0, 9).Draw(t, "node"))
				c.Release(n)
				delete(had, n)
			},
			"": func(t *rapid.T) {
				for n, p := range had {
					for m, q := range had {
						if n != m && p.Overlaps(q) {
							t.Fatalf("%s has %s, %s has %s", n, p, m, q)
						}
					}
				}
			},
		})
	})
}
