package prefilter

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hypha-net/hypha/internal/model"
)

func parse(t *testing.T, cidrs ...string) []netip.Prefix {
	t.Helper()
	ps, err := Parse(cidrs)
	if err != nil {
		t.Fatal(err)
	}
	return ps
}

func TestParse(t *testing.T) {
	got := parse(t, "192.0.2.7/24", "2001:db8::1", "10.0.0.0/8", "192.0.2.0/24", "0.0.0.0/0", "10.0.0.0/9", "::/0", "192.0.2.9")
	if want := "[0.0.0.0/0 10.0.0.0/8 10.0.0.0/9 192.0.2.0/24 192.0.2.9/32 ::/0 2001:db8::1/128]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %v", got, want)
	}
	for in, want := range map[string]string{
		"": "is no CIDR", "10.0.0.0/33": "is no CIDR", "10.0.0/8": "is no CIDR", "10.0.0.0/-1": "is no CIDR", "fe80::1%eth0": "is no CIDR", "fe80::%eth0/64": "is no CIDR",
		"::ffff:10.0.0.0/104": "write it as IPv4", "::ffff:10.0.0.1": "write it as IPv4",
	} {
		if _, err := Parse([]string{"10.0.0.0/8", in}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
	if _, err := Parse(strings.Split("a b c d e f g", " ")); err == nil || !strings.HasSuffix(err.Error(), ", and 2 more") {
		t.Errorf("%v", err)
	}
}

func TestRevisions(t *testing.T) {
	l := Empty()
	next, n, err := l.Add(1, parse(t, "10.0.0.0/8", "192.0.2.1"))
	if err != nil || n != 2 || next.Revision != 2 || len(l.Deny) != 0 {
		t.Fatalf("%+v %d %v; before %+v", next, n, err, l)
	}
	l = next
	if same, n, err := l.Add(0, parse(t, "10.0.0.0/8")); err != nil || n != 0 || same.Revision != 2 {
		t.Errorf("what is there already: %+v %d %v", same, n, err)
	}
	for _, change := range []func(uint64, []netip.Prefix) (List, int, error){l.Add, l.Remove} {
		same, _, err := change(1, parse(t, "10.0.0.0/8"))
		if !errors.Is(err, ErrStale) || !strings.Contains(err.Error(), "at revision 2") || same.Revision != 2 || len(same.Deny) != 2 {
			t.Errorf("a stale revision: %+v, %v", same, err)
		}
	}
	if same, _, err := l.Remove(2, parse(t, "10.0.0.0/8", "10.0.0.0/9")); !errors.Is(err, ErrAbsent) || !strings.Contains(err.Error(), "10.0.0.0/9") || len(same.Deny) != 2 {
		t.Errorf("what is not there: %+v, %v", same, err)
	}
	if l, n, err = l.Remove(2, parse(t, "10.0.0.0/8", "192.0.2.1/32")); err != nil || n != 2 || l.Revision != 3 || len(l.Deny) != 0 {
		t.Errorf("%+v %d %v", l, n, err)
	}
}

func TestJSON(t *testing.T) {
	l := List{Revision: 7, Deny: parse(t, "10.0.0.0/8", "2001:db8::/32")}
	b, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	var got List
	if err := json.Unmarshal(b, &got); err != nil || got.Revision != 7 || !slices.Equal(got.Deny, l.Deny) {
		t.Errorf("%s: %+v, %v", b, got, err)
	}
	for _, bad := range []string{`{}`, `{"deny":["10.0.0.0/8"]}`, `{"revision":1,"deny":["10.0.0.0/40"]}`, `{"revision":1,"deny":[7]}`, `[]`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func TestSpare(t *testing.T) {
	nodes := map[netip.Addr]string{netip.MustParseAddr("192.0.2.1"): "n1", netip.MustParseAddr("192.0.2.2"): "n2", netip.MustParseAddr("2001:db8::1"): "n1"}
	for cidrs, want := range map[string]string{
		"192.0.2.1":                     "192.0.2.1/32 covers 192.0.2.1 (node n1): the nodes of the cluster would not hear of each other any more",
		"198.51.100.0/24 192.0.2.2/31":  "192.0.2.2/31 covers 192.0.2.2 (node n2): the nodes of the cluster would not hear of each other any more",
		"0.0.0.0/0":                     "0.0.0.0/0 covers 192.0.2.1 (node n1), 0.0.0.0/0 covers 192.0.2.2 (node n2): the nodes of the cluster would not hear of each other any more",
		"::/0":                          "::/0 covers 2001:db8::1 (node n1): the nodes of the cluster would not hear of each other any more",
		"2001:db8::/64 2001:db8::/48":   "2001:db8::/48 covers 2001:db8::1 (node n1): the nodes of the cluster would not hear of each other any more",
		"192.0.2.4/30 2001:db8::2 10/8": "",
	} {
		got := ""
		if err := Spare(parse(t, strings.Fields(strings.ReplaceAll(cidrs, "10/8", "10.0.0.0/8"))...), nodes); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", cidrs, got, want)
		}
	}
}

func prefixes() *rapid.Generator[[]netip.Prefix] {
	one := rapid.Custom(func(t *rapid.T) netip.Prefix {
		a := netip.AddrFrom4([4]byte{10, 0, 0, rapid.Byte().Draw(t, "last")})
		if rapid.Bool().Draw(t, "v6") {
			a = netip.AddrFrom16([16]byte{0x20, 1, 15: rapid.Byte().Draw(t, "last")})
		}
		return netip.PrefixFrom(a, a.BitLen()-rapid.IntRange(0, 4).Draw(t, "wider")).Masked()
	})
	return rapid.Custom(func(t *rapid.T) []netip.Prefix { return model.SortCIDRs(rapid.SliceOf(one).Draw(t, "prefixes")) })
}

// A list is a set: changes are those of sets, and who is hit is who any prefix contains.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := Empty()
		set := map[netip.Prefix]bool{}
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			ps := prefixes().Draw(t, "given")
			next, changed, err := l.Add(l.Revision, ps)
			before := len(set)
			if rapid.Bool().Draw(t, "remove") {
				next, changed, err = l.Remove(l.Revision, ps)
				absent := slices.ContainsFunc(ps, func(p netip.Prefix) bool { return !set[p] })
				if errors.Is(err, ErrAbsent) != absent {
					t.Fatalf("remove %v from %v: %v", ps, l.Deny, err)
				}
				if absent {
					continue
				}
				for _, p := range ps {
					delete(set, p)
				}
			} else {
				for _, p := range ps {
					set[p] = true
				}
			}
			if d := len(set) - before; err != nil || changed != max(d, -d) || (next.Revision != l.Revision) != (changed != 0) || len(next.Deny) != len(set) {
				t.Fatalf("%v after %+v: %+v, %d, %v; want %v", ps, l, next, changed, err, set)
			}
			l = next
		}
		for _, p := range l.Deny {
			if !set[p] {
				t.Fatalf("%v is on the list", p)
			}
		}
		nodes := map[netip.Addr]string{}
		for _, p := range prefixes().Draw(t, "nodes") {
			nodes[p.Addr()] = "n"
		}
		want := 0
		for a := range nodes {
			if slices.ContainsFunc(l.Deny, func(p netip.Prefix) bool { return p.Contains(a) }) {
				want++
			}
		}
		if hits := Hits(l.Deny, nodes); len(hits) != want || slices.ContainsFunc(hits, func(h Hit) bool { return !h.Prefix.Contains(h.Addr) }) {
			t.Fatalf("hits %v, want %d", hits, want)
		}
	})
}
