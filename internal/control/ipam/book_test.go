package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func one(s string, bits int) Pool { return Pool{netip.MustParsePrefix(s), bits} }

func TestBook(t *testing.T) {
	b := NewBook()
	bad := b.SetPools(map[string][]Pool{"blue": {one("10.0.0.0/28", 29), one("10.1.0.0/29", 29), one("fd00::/124", 126)}, "red": {one("10.0.0.0/27", 29)}, "bad": {one("10.9.0.0/24", 16)}})
	if len(bad) != 1 || bad["bad"] == nil {
		t.Fatalf("bad pools: %v", bad)
	}
	for _, s := range []struct {
		node, pool string
		v6         bool
		needed     int
		want       string
	}{
		{"a", "blue", false, 0, "[]"},
		{"a", "blue", false, 1, "[10.0.0.0/29]"},
		{"a", "blue", false, 6, "[]"},
		{"a", "blue", false, 7, "[10.0.0.8/29]"},
		{"b", "red", false, 8, "[10.0.0.16/29 10.0.0.24/29]"}, // the pools overlap
		{"b", "blue", true, 4, "[fd00::/126 fd00::4/126]"},
		{"b", "blue", false, 7, "[10.1.0.0/29] has no free /29"},
		{"b", "red", true, 1, "[] has no IPv6 addresses"},
		{"b", "green", false, 1, "[] there is no such pool"},
		{"b", "bad", false, 1, "[] has no IPv4 addresses"},
	} {
		got, err := b.Give(s.node, s.pool, s.v6, s.needed)
		list, why, _ := strings.Cut(s.want, "]")
		if fmt.Sprint(got) != list+"]" || (err != nil) != (why != "") || err != nil && !strings.Contains(err.Error(), strings.TrimSpace(why)) {
			t.Errorf("%s needs %d of %s: %v, %v, want %s", s.node, s.needed, s.pool, got, err, s.want)
		}
	}
	// What a pool had given before it went is its node's until that gives it back.
	b.SetPools(map[string][]Pool{"red": {one("10.0.0.0/27", 29)}})
	if _, err := b.Give("a", "blue", false, 13); !errors.Is(err, ErrNoPool) {
		t.Error(err)
	}
	if got, err := b.Give("c", "red", false, 1); err == nil {
		t.Errorf("given to two: %v", got)
	}
	b.Free("a", "blue", netip.MustParsePrefix("10.0.0.8/29"))
	if got, _ := b.Give("c", "red", false, 1); fmt.Sprint(got) != "[10.0.0.8/29]" {
		t.Errorf("what was given back: %v", got)
	}
	if c := b.Conflicts(); len(c) != 0 {
		t.Error(c)
	}
	if err := b.Adopt("d", Held{"x": prefixes("10.0.0.0/30")}); err != nil {
		t.Fatal(err)
	}
	if c := b.Conflicts(); c["d"] == nil || c["a"] == nil || len(c) != 2 {
		t.Error(c)
	}
}

// A node's addresses and the cluster's book, with blocks that come and go: none is given to two, none goes while it is used, and what is
// asked for can be had.
func TestBlocksModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ahead := rapid.IntRange(0, 4).Draw(t, "ahead")
		b := NewBook()
		b.SetPools(map[string][]Pool{"p": {one("10.0.0.0/24", rapid.IntRange(26, 32).Draw(t, "bits"))}})
		nodes := make([]*Allocator, 3)
		used := make([][]netip.Addr, 3)
		for i := range nodes {
			nodes[i], _ = New(nil)
		}
		sync := func(t *rapid.T, n, waiting int) error {
			name := fmt.Sprint(n)
			needed := Needed(len(used[n])+waiting, ahead)
			given, err := b.Give(name, "p", false, needed)
			for _, p := range given {
				if err := nodes[n].Add("p", p); err != nil {
					t.Fatal(err)
				}
			}
			for _, p := range Surplus(nodes[n].Blocks(), needed) {
				if err := nodes[n].Remove(p); err != nil {
					t.Fatal(err)
				}
				b.Free(name, "p", p)
			}
			return err
		}
		t.Repeat(map[string]func(*rapid.T){
			"allocate": func(t *rapid.T) {
				n := rapid.IntRange(0, 2).Draw(t, "node")
				ip, err := nodes[n].Allocate("x", "p", false)
				if err != nil {
					if full := sync(t, n, 1); full != nil {
						return
					}
					if ip, err = nodes[n].Allocate("x", "p", false); err != nil {
						t.Fatalf("asked for one and has none: %v", err)
					}
				}
				for m := range used {
					if slices.Contains(used[m], ip) {
						t.Fatalf("%s given to %d and %d", ip, m, n)
					}
				}
				used[n] = append(used[n], ip)
			},
			"release": func(t *rapid.T) {
				n := rapid.IntRange(0, 2).Draw(t, "node")
				if len(used[n]) == 0 {
					return
				}
				i := rapid.IntRange(0, len(used[n])-1).Draw(t, "address")
				nodes[n].Release(used[n][i])
				used[n] = slices.Delete(used[n], i, i+1)
			},
			"sync": func(t *rapid.T) { _ = sync(t, rapid.IntRange(0, 2).Draw(t, "node"), 0) },
			"restart": func(t *rapid.T) { // of a node that learns of its blocks after its workloads
				n := rapid.IntRange(0, 2).Draw(t, "node")
				nodes[n], _ = New(nil)
				for _, ip := range used[n] {
					if err := nodes[n].Hold(ip, "x"); err != nil {
						t.Fatal(err)
					}
				}
				for _, p := range b.Held(fmt.Sprint(n))["p"] {
					if err := nodes[n].Add("p", p); err != nil {
						t.Fatal(err)
					}
				}
			},
			"": func(t *rapid.T) {
				if c := b.Conflicts(); len(c) > 0 {
					t.Fatal(c)
				}
				for n := range nodes {
					total := 0
					for _, k := range nodes[n].Blocks() {
						total += k.Used
						if !slices.Contains(b.Held(fmt.Sprint(n))["p"], k.Prefix) {
							t.Fatalf("%d uses %s, which is not its own", n, k.Prefix)
						}
					}
					if total != len(used[n]) {
						t.Fatalf("%d of %d addresses are in blocks of node %d", total, len(used[n]), n)
					}
				}
			},
		})
	})
}

func TestNeeded(t *testing.T) {
	for _, c := range []struct{ used, ahead, want int }{{0, 0, 0}, {5, 0, 5}, {0, 8, 8}, {1, 8, 16}, {8, 8, 16}, {9, 8, 24}} {
		if got := Needed(c.used, c.ahead); got != c.want {
			t.Errorf("%d used, %d ahead: %d, want %d", c.used, c.ahead, got, c.want)
		}
	}
}
