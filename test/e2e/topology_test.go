package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hypha-net/hypha/internal/workload"
)

// TestTopology: from outside, packet by packet, and from a workload's socket, new flows of a node go to the backends that are near it,
// and to all when the hints are taken away.
func TestTopology(t *testing.T) {
	c := start(t, native, 2, map[string]any{"enable-service-topology": true, "node-labels": []string{"topology.kubernetes.io/zone=z1"}})
	one, two := add(t, c, "one", 0), add(t, c, "two", 1)
	client := add(t, c, "client", 0)
	for i, v6 := range native.families() {
		vip, every := netip.MustParseAddr("10.96.0.70"), "0.0.0.0"
		if v6 {
			vip, every = netip.MustParseAddr("fd96::70"), "::"
		}
		port := uint16(30700 + i)
		update := func(more ...string) {
			t.Helper()
			backends := []string{netip.AddrPortFrom(one.Addr(v6), workload.HTTPPort).String(), netip.AddrPortFrom(two.Addr(v6), workload.HTTPPort).String()}
			for id, at := range []netip.AddrPort{netip.AddrPortFrom(vip, port), netip.AddrPortFrom(netip.MustParseAddr(every), port)} {
				args := []string{"service", "update", "--id", strconv.Itoa(1 + 2*i + id), "--frontend", at.String(), "--backends", strings.Join(backends, ",")}
				if id == 1 {
					args = append(args, "--k8s-node-port")
				}
				if out, err := c.Hypha(t.Context(), c.Nodes[0], append(args, more...)...); err != nil {
					t.Fatalf("%v: %v %s", args, err, out)
				}
			}
		}
		// goes says who answers 8 flows of each kind, by where they come in.
		goes := func(what string, want ...[]string) {
			t.Helper()
			eventually(t, yes, family(v6)+", "+what, func() error {
				for from, want := range want {
					seen := map[string]bool{}
					for range 8 {
						for _, get := range []func() (string, error){
							func() (string, error) {
								n := c.Nodes[from]
								return fetch(c.World, map[bool]netip.Addr{false: n.IP4, true: n.IP6}[v6], port, yes)
							},
							func() (string, error) { return fetch(client.NS, vip, port, yes) },
						}[:2-from] { // the client is on the first node
							got, err := get()
							if err != nil {
								return err
							}
							name, _, _ := strings.Cut(got, " ")
							seen[name] = true
						}
					}
					var got []string
					for name := range seen {
						got = append(got, name)
					}
					if slices.Sort(got); !slices.Equal(got, want) {
						return fmt.Errorf("by way of %s: answered by %v, want %v", c.Nodes[from].Name, got, want)
					}
				}
				return nil
			})
		}
		both := []string{"one", "two"}
		update("--backend-hints", "z1,z2")
		goes("hinted", []string{"one"}, []string{"one"})
		update("--backend-zones", "z2,z1", "--traffic-distribution", "PreferClose")
		goes("the zone of a backend", []string{"two"}, []string{"two"})
		update("--traffic-distribution", "PreferSameNode")
		goes("the same node", []string{"one"}, []string{"two"})
		update("--states", "active,maintenance", "--traffic-distribution", "PreferSameNode")
		goes("nobody on the second node", []string{"one"}, []string{"one"})
		update("--traffic-distribution", "", "--backend-hints", "z1,")
		goes("one without a hint", both, both)
	}
}
