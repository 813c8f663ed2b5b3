package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/source/servicefile"
	"github.com/hypha-net/hypha/internal/testutil/netns"
	"github.com/hypha-net/hypha/test/bench/arm"
	"github.com/hypha-net/hypha/test/bench/load"
	"github.com/hypha-net/hypha/test/bench/page"
)

// TestMain lets the test binary be the load process.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "load" {
		exit(load.Main(os.Args[2:], os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

func TestParse(t *testing.T) {
	o, err := parse([]string{"-quick", "-rounds", "5", "-arms", "B1,C"})
	if err != nil || o.rounds != 5 || o.load != 10000 || !slices.Equal(o.sizes, []int{1, 1000, 5000}) || !slices.Equal(o.arms, []string{"B1", "C"}) || o.given != " -arms B1,C -quick -rounds 5" {
		t.Errorf("%+v %v", o, err)
	}
	if o, err = parse(nil); err != nil || o.rounds != 7 || o.arms != nil || o.parts != nil || len(o.sizes) != 6 {
		t.Errorf("%+v %v", o, err)
	}
	for _, args := range [][]string{{"-sizes", "5,1"}, {"-sizes", ""}, {"-vips", "x"}, {"-rounds", "0"}, {"-changes", "1,,2"}} {
		if o, err := parse(args); err == nil {
			t.Errorf("%v: %+v", args, o)
		}
	}
}

// Whatever is measured at any size has endpoints that exist, and nothing else has.
func TestReality(t *testing.T) {
	got := reality([]int{1, 100})
	for i, want := range map[int]bool{0: true, 50: true, 99: true, 1: false, 49: false} {
		if got[i] != want {
			t.Errorf("service %d: %v", i, got[i])
		}
	}
	if s := serviceOf(7, true); s.Endpoints != arm.Endpoints || s.Ports[0] != port {
		t.Errorf("%+v", s)
	}
}

// connected is a report of one round: each arm's p50 in us, straight and to the three goals; p99 is ten times that.
func connected(services int, p50 map[string][]float64) connectReport {
	r := connectReport{services: services, rounds: []connectRound{{got: map[string]load.Connects{}}}}
	for name, v := range p50 {
		c := load.Connects{CPU: 5 * time.Microsecond}
		for _, x := range v {
			us := time.Duration(x * 1e3)
			c.To = append(c.To, load.Connect{Count: 9, P50: us, P99: 10 * us, Added: us - time.Duration(v[0]*1e3)})
		}
		r.rounds[0].got[name] = c
	}
	r.Kept, r.Good = 1, 1
	return r
}

// named stands in for an arm.
type named struct {
	arm.Arm
	name string
}

func (n named) Name() string  { return n.name }
func (n named) About() string { return "about " + n.name }

// report is one in which Hypha loses against B2 at the socket, and nowhere else.
func report() *sitesReport {
	r := &sitesReport{}
	for _, a := range []string{baseName, atSocket, inPackets} {
		if a == baseName {
			r.arms = append(r.arms, &plain{Arm: named{name: a}})
		} else {
			r.arms = append(r.arms, &clustered{Arm: named{name: a}})
		}
	}
	for _, a := range arm.KubeProxyBare() {
		r.arms = append(r.arms, &proxied{Proxied: a})
	}
	for _, n := range []int{1, 5000} {
		r.connects = append(r.connects, connected(n, map[string][]float64{
			baseName: {10}, atSocket: {8, 8.5, 8.5, 9.5}, inPackets: {8, 8.1, 8.1, 8.1}, byIPTables: {40, 12, 30, 50}, byNFTables: {11, 11, 11, 11},
		}))
	}
	ms := func(v ...time.Duration) (out []time.Duration) {
		for _, x := range v {
			out = append(out, x*time.Millisecond)
		}
		return out
	}
	r.changes = []changeReport{{services: 5000, got: map[string]*changes{
		atSocket:   {called: ms(4, 5), kernel: ms(4, 6), through: ms(5, 7), failed: 1},
		byIPTables: {called: ms(900), through: ms(800)}, byNFTables: {called: ms(4), through: ms(3)},
	}}}
	return r
}

// On kube-proxy's arms the base goes without rules; on Hypha's the same turn goes straight.
func TestAdded(t *testing.T) {
	c := report().connects[1]
	for _, x := range []struct {
		name, goal string
		p50, p99   float64
	}{{atSocket, "last", 1.5, 15}, {byIPTables, "last", 40, 400}, {byIPTables, "straight", 30, 300}, {byNFTables, "first", 1, 10}} {
		half, least, most, high := c.added(x.name, x.goal)
		if half != x.p50 || least != x.p50 || most != x.p50 || high != x.p99 {
			t.Errorf("%+v: %v (%v to %v), %v", x, half, least, most, high)
		}
	}
}

func TestSitesText(t *testing.T) {
	r := report()
	var targets page.Targets
	r.judge(&targets)
	got := targets.String() + r.text(options{duration: time.Second})
	for _, want := range []string{
		"| C: p99 of the connect to the last of 5000 over that of 1 | 1.00 | <= 1.05 | reached |",
		"| C: added to a connect, p50, the last of 5000 (spread) | 1.50 us (1.50 to 1.50) | <= 1 us | **missed** |",
		"| C: added, p50, the last of 5000, against B1's | 1.50 us against 40.0 us | 20 times less | reached |",
		"| C: added, p99, the last of 5000, against B2's | 15.0 us against 10.0 us | <= 0.5 of it | **missed** |",
		"| Cp: added to a connect, p50, the last of 5000 (spread) | 0.10 us (0.10 to 0.10) | <= 2 us | reached |",
		"| ... p50, against B1's | 7.00 ms against 800.00 ms | 100 times less | reached |",
		"| ... p50, against B2's | 7.00 ms against 3.00 ms | 10 times less | **missed** |",
		"| ... connections to another service that failed meanwhile | 1 | 0 | **missed** |",
		"- C against B2, p50 of what is added to a connect, in us: last of 1 (1.50, 1.00), last of 5000 (1.50, 1.00)\n",
		"- one more than 5000 services, to the first connection, p50: 7.00 ms against B2's 3.00 ms\n",
		"- **Cp** about Cp\n",
		"| A2 | straight | 10.0, 100.0 | 10.0, 100.0 |",
		"| B1 | straight | 30.00 (30.00 to 30.00), 300.0 |",
		"| C | last | 1.50 (1.50 to 1.50), 15.0 | 1.50 (1.50 to 1.50), 15.0 |",
		"| 5000 | B1 | 1 | 900.00 ms, 900.00 ms |  | 800.00 ms, 800.00 ms | 0 |",
		"- Among 5000: 1 rounds, in which A2 differed",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("lacks %q:\n%s", want, got)
		}
	}
	for _, not := range []string{"Cp against", "C against B1", "| C | straight | 0.00"} {
		if strings.Contains(got, not) {
			t.Errorf("has %q:\n%s", not, got)
		}
	}
}

// An arm that was left out leaves its targets out, and nothing is said of who would be behind it.
func TestSitesTextWithoutRivals(t *testing.T) {
	r := report()
	r.arms, r.changes = r.arms[:2], nil
	var targets page.Targets
	r.judge(&targets)
	got := targets.String() + r.text(options{})
	for _, not := range []string{"B1's", "B2's", "| B1 |", "Cp", "behind", "One service more"} {
		if strings.Contains(got, not) {
			t.Errorf("has %q:\n%s", not, got)
		}
	}
	if !strings.Contains(got, "| C: added to a connect, p50, the last of 5000 (spread) | 1.50 us") {
		t.Error(got)
	}
}

func TestProgramText(t *testing.T) {
	times := func(vips int, v ...float64) *programTimes {
		p := &programTimes{vips: vips}
		for range traffics {
			p.program, p.empty = append(p.program, []float64{100, 112}), append(p.empty, []float64{20, 26})
		}
		for i, x := range v {
			p.program[i] = []float64{x + 20, x + 32}
		}
		return p
	}
	var targets page.Targets
	got := programText(options{passes: 2, repeat: 10}, []*programTimes{times(1, 60, 140, 210), times(50, 63, 160, 230)}, &targets)
	for _, want := range []string{
		"| from_netdev to a VIP, an established connection, 50 VIPs | 63 ns | <= 80 ns | reached |",
		"| from_netdev to a VIP, an established connection: the most over the least, 1 to 50 VIPs | +5 % | flat within 10 % | reached |",
		"| from_netdev to a VIP, 4096 established connections, 50 VIPs | 160 ns | <= 150 ns | **missed** |",
		"4096 established connections: the most over the least, 1 to 50 VIPs | +14 % | flat within 10 % | **missed** |",
		"| from_netdev to a VIP, a new connection, 50 VIPs | 230 ns | <= 200 ns | **missed** |",
		"| an established connection, to a VIP | 60 (63) | 63 (66) |",
		"| an established connection, straight | 80 (83) | 80 (83) |",
		"| an established connection: balancing | -20 (-20) | -17 (-17) |",
	} {
		if !strings.Contains(targets.String()+got, want) {
			t.Errorf("lacks %q:\n%s%s", want, targets.String(), got)
		}
	}
	if len(targets.Missed) != 3 {
		t.Errorf("missed: %q", targets.Missed)
	}
}

// kube-proxy's arms and the base, small: everybody gets through, before and behind a change.
func TestRivals(t *testing.T) {
	netns.Require(t)
	for _, tool := range []string{"iptables-restore", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	o := options{sizes: []int{1, 5}, rounds: 1, duration: 50 * time.Millisecond, drift: 1, patience: time.Second}
	r := &sitesReport{arms: newSites("", o.sizes)[:3]}
	defer func() {
		for _, s := range r.arms {
			if err := s.close(); err != nil {
				t.Error(err)
			}
		}
	}()
	next := newSince
	for _, n := range o.sizes {
		if err := r.grow(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		c, err := connects(t.Context(), o, n, r.arms)
		if err != nil {
			t.Fatal(err)
		}
		for name, got := range c.rounds[0].got {
			want := len(goals)
			if name == baseName {
				want = 1
			}
			if len(got.To) != want || got.To[0].Count == 0 || got.CPU <= 0 {
				t.Errorf("%s: %+v", name, got)
			}
		}
		r.connects = append(r.connects, c)
	}
	x, err := changesOf(t.Context(), o, 5, r.changing(), &next)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range rivals {
		c := x.got[name]
		if len(c.through) != 1 || c.through[0] <= 0 || c.called[0] <= 0 || len(c.kernel) != 0 || c.failed != 0 {
			t.Errorf("%s: %+v", name, c)
		}
	}
	r.changes = append(r.changes, x)
	if got := r.text(o); !strings.Contains(got, "| 5 | B1 | 1 |") || !strings.Contains(got, "| B2 | last |") {
		t.Error(got)
	}
}

// The packets are what they are said to be: as many flows, each on record once, and all delivered.
func TestPrograms(t *testing.T) {
	netns.Require(t)
	for _, vips := range []int{1, 50} {
		t.Run(fmt.Sprint(vips), func(t *testing.T) {
			w, err := newTown(t, vips)
			if err == nil {
				err = w.establish()
			}
			if err != nil {
				t.Fatal(err)
			}
			count := func() (flows map[int]int, asked map[maps.Addr]bool) {
				flows, asked = map[int]int{}, map[maps.Addr]bool{}
				var k maps.NATKey
				var v maps.NATValue
				it := w.Maps.NatV2.Iterate()
				for it.Next(&k, &v) {
					if k.Dir != uint8(maps.NATForward) {
						continue
					}
					low := k.Src.Netip().As4()
					n := (int(low[2])<<8 | int(low[3])) - firstClient&0xffff
					flows[n<<portBits>>24]++
					asked[k.Dst] = true
				}
				if it.Err() != nil {
					t.Fatal(it.Err())
				}
				return flows, asked
			}
			flows, _ := count()
			out := &programTimes{program: make([][]float64, len(traffics)), empty: make([][]float64, len(traffics))}
			const repeat = 300
			if err := w.round(out, repeat); err != nil {
				t.Fatal(err)
			}
			after, asked := count()
			for kind, k := range traffics {
				want := k.flows
				if k.straight {
					want = 0
				}
				if flows[kind] != want {
					t.Errorf("%s, straight %v: %d flows on record, want %d", k.what, k.straight, flows[kind], want)
				}
				if k.flows == 0 && !k.straight {
					want = manyFlows + repeat // warming up, and measured
				}
				if after[kind] != want {
					t.Errorf("%s, straight %v: %d flows on record behind a round, want %d", k.what, k.straight, after[kind], want)
				}
				if out.empty[kind][0] <= 0 || out.program[kind][0] <= 0 {
					t.Errorf("%s: took %v, an empty program %v", k.what, out.program[kind], out.empty[kind])
				}
			}
			if len(asked) != vips {
				t.Errorf("%d VIPs were asked, want %d", len(asked), vips)
			}
		})
	}
}

// What is decided for many services is what reaches the kernel; the file says the same.
func TestLoad(t *testing.T) {
	netns.Require(t)
	const n = 300
	rows := decide(n)
	if len(rows) != n || len(rows[0].Slots) != manyBackends {
		t.Fatalf("%d rows, the first %+v", len(rows), rows[0])
	}
	if s, err := write(t.Context(), rows); err != nil || s.wall <= 0 || s.cpu <= 0 {
		t.Errorf("%+v %v", s, err)
	}
	text, err := document(n)
	if err != nil {
		t.Fatal(err)
	}
	listed, err := servicefile.Parse(text)
	if err != nil || len(listed) != n {
		t.Fatal(len(listed), err)
	}
	for i := range listed {
		want := intent(i)
		if listed[i].Frontend != want.Frontend || !slices.Equal(listed[i].Backends, want.Backends) {
			t.Fatalf("service %d: %+v, want %+v", i, listed[i], want)
		}
	}
}
