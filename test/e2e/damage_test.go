package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/deploy/demo"
	"github.com/hypha-net/hypha/internal/testutil/score"
	"github.com/hypha-net/hypha/internal/workload"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// TestCase27Damage: devices, programs, routes and pins that are removed by hand come back by themselves; meanwhile nothing
// passes between workloads that policy forbids. (What a workload sends to the outside is not policed while the program on its
// device is off: its node forwards it.)
func TestCase27Damage(t *testing.T) {
	sc := score.Start(t, "27", "veth, program, route, pin, tunnel device removed by hand")
	c := start(t, overlay, 2, nil)
	app1, app2, app3 := add(t, c, "app1", 0), add(t, c, "app2", 0), add(t, c, "app3", 0)
	far2, far3 := add(t, c, "far2", 1, "id=app2"), add(t, c, "far3", 1, "id=app3")
	importPolicy(t, c, string(demo.Policy))
	n := c.Nodes[0]
	// Where a device is missing, the node's stack may say that nobody is there: that is no passage.
	stopped := func(err error) bool {
		return dropped(err) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH)
	}
	stops := []func() (uint64, uint64){knockUnless(t, app3.NS, app1.Addr(false), stopped), knockUnless(t, app3.NS, app1.Addr(true), stopped),
		knockUnless(t, far3.NS, app1.Addr(false), stopped)}

	eps, err := n.Endpoints(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	host := eps[slices.IndexFunc(eps, func(e *agentv1.Endpoint) bool { return e.GetName() == "app1" })].GetHostInterface()
	inNode := func(fn func() error) error { return n.NS.Do(fn) }
	pinned := func(prefix string) error { // removes pins and what they hold
		files, err := filepath.Glob(filepath.Join(n.Paths.Links(), prefix))
		if err != nil || len(files) == 0 {
			return fmt.Errorf("no pins %s: %w", prefix, err)
		}
		for _, f := range files {
			err = errors.Join(err, os.Remove(f))
		}
		return err
	}
	var worst time.Duration
	rounds := score.Size(1, 20)
	damages := []struct {
		name string
		do   func() error
	}{
		{"device of a workload", func() error {
			return inNode(func() error { return deleteLink(host) })
		}},
		{"device down", func() error {
			return inNode(func() error {
				l, err := netlink.LinkByName(host)
				if err != nil {
					return err
				}
				return netlink.LinkSetDown(l)
			})
		}},
		{"programs of a workload", func() error { return inNode(func() error { return detachAll(host, n.Paths.Links()) }) }},
		{"pins of programs", func() error { return pinned("pod-*") }},
		{"routes", func() error {
			return inNode(func() error {
				for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
					rs, err := netlink.RouteList(nil, family)
					if err != nil {
						return err
					}
					for _, r := range rs {
						if r.Protocol == 104 || r.Protocol == 105 {
							if err := netlink.RouteDel(&r); err != nil {
								return err
							}
						}
					}
				}
				return nil
			})
		}},
		{"tunnel device", func() error { return inNode(func() error { return deleteLink("hypha_vxlan") }) }},
		{"pins of maps", func() error {
			files, err := filepath.Glob(filepath.Join(n.Paths.Maps(), "*_v1"))
			for _, f := range files {
				err = errors.Join(err, os.Remove(f))
			}
			return err
		}},
	}
	for range rounds {
		for _, d := range damages {
			if err := d.do(); err != nil {
				t.Fatalf("%s: %v", d.name, err)
			}
			began := time.Now()
			eventually(t, 30*time.Second, d.name+" to be mended", func() error {
				for _, from := range []*cluster.Pod{app2, far2} {
					for _, v6 := range overlay.families() {
						if _, err := fetch(from.NS, app1.Addr(v6), workload.HTTPPort, no); err != nil {
							return fmt.Errorf("%s %s: %w", from.Name, family(v6), err)
						}
					}
				}
				if _, err := fetch(n.NS, app1.Addr(false), workload.HTTPPort, no); err != nil {
					return fmt.Errorf("from the node: %w", err)
				}
				for _, what := range []string{"pod-*-ingress", "overlay-*-ingress"} {
					if files, err := filepath.Glob(filepath.Join(n.Paths.Links(), what)); err != nil || len(files) == 0 {
						return fmt.Errorf("no pins %s", what)
					}
				}
				if _, err := os.Stat(filepath.Join(n.Paths.Maps(), "policy_v1")); err != nil {
					return err
				}
				return whole(t.Context(), n)
			})
			took := time.Since(began)
			worst = max(worst, took)
			t.Logf("%s: mended after %v", d.name, took)
		}
	}
	var tried, passed uint64
	for _, stop := range stops {
		a, b := stop()
		tried, passed = tried+a, passed+b
	}
	if passed > 0 || tried == 0 {
		t.Errorf("%d of %d connections passed against policy", passed, tried)
	}
	sc.Count(rounds*len(damages), "removals")
	sc.Say("%d of %d forbidden connections passed; mended after at most %v", passed, tried, worst.Round(100*time.Millisecond))
}

// whole says whether an agent has nothing to complain of.
func whole(ctx context.Context, n *cluster.Node) error {
	st, err := n.Status(ctx)
	if err != nil {
		return err
	}
	for _, c := range st.GetComponents() {
		if s := c.GetState(); s == agentv1.Component_WARNING || s == agentv1.Component_FAILURE {
			return fmt.Errorf("%s: %s", c.GetName(), c.GetMessage())
		}
	}
	return nil
}

func deleteLink(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkDel(l)
}

// detachAll takes the programs off a device, pins and all left where they are.
func detachAll(name, pins string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(pins, fmt.Sprintf("pod-%d-*", l.Attrs().Index)))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no links on %s: %w", name, err)
	}
	for _, f := range files {
		have, err := link.LoadPinnedLink(f, nil)
		if err != nil {
			return err
		}
		err = have.(interface{ Detach() error }).Detach()
		if err = errors.Join(err, have.Close()); err != nil {
			return err
		}
	}
	return nil
}
