package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/workload"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// filtered is a cluster with a server outside under two addresses of each family, and one pod on each node.
type filtered struct {
	*cluster.Cluster
	t    *testing.T
	near *cluster.Pod // on the node under test
	far  *cluster.Pod
}

// addresses of the server outside, by family.
var (
	outside = map[bool]netip.Addr{false: netip.MustParseAddr(cluster.Outside4), true: netip.MustParseAddr(cluster.Outside6)}
	another = map[bool]netip.Addr{false: netip.MustParseAddr("203.0.114.10"), true: netip.MustParseAddr("2001:db8:1::10")}
)

func startFiltered(t *testing.T, m mode) *filtered {
	t.Helper()
	c := start(t, m, 2, nil)
	f := &filtered{c, t, add(t, c, "near", 0), add(t, c, "far", 1)}
	if err := c.World.AddAddr("lo", another[false].String()+"/32", another[true].String()+"/128"); err != nil {
		t.Fatal(err)
	}
	if err := c.ServeOutside(); err != nil {
		t.Fatal(err)
	}
	return f
}

// prefilter runs the command on the first node; it must succeed.
func (f *filtered) prefilter(args ...string) string {
	f.t.Helper()
	out, err := f.Hypha(f.t.Context(), f.Nodes[0], append([]string{"prefilter"}, args...)...)
	if err != nil {
		f.t.Error(err)
	}
	return out
}

// cut checks which families hear no more of the server outside under its first address; the rest hears it as before.
func (f *filtered) cut(what string, v4, v6 bool) {
	f.t.Helper()
	for _, fam := range []bool{false, true} {
		denied := v4 && !fam || v6 && fam
		wait := yes
		if denied {
			wait = no
		}
		if _, err := fetch(f.near.NS, outside[fam], workload.HTTPPort, wait); denied && !dropped(err) || !denied && err != nil {
			f.t.Errorf("%s, %s: %v; denied: %v", what, family(fam), err, denied)
		}
		for from, pod := range map[string]*cluster.Pod{"another address": f.near, "another node": f.far} {
			to := outside[fam]
			if pod == f.near {
				to = another[fam]
			}
			if _, err := fetch(pod.NS, to, workload.HTTPPort, yes); err != nil {
				f.t.Errorf("%s, %s, %s: %v", what, family(fam), from, err)
			}
		}
		if _, err := fetch(f.near.NS, f.far.Addr(fam), workload.HTTPPort, yes); err != nil {
			f.t.Errorf("%s, %s, to the other node's pod: %v", what, family(fam), err)
		}
	}
}

// attached says how the first node's device runs an XDP program: 0 not at all.
func (f *filtered) attached() (mode uint32) {
	f.t.Helper()
	err := f.Nodes[0].NS.Do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err == nil && l.Attrs().Xdp != nil {
			mode = l.Attrs().Xdp.AttachMode
		}
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return mode
}

// TestPrefilter: who is denied is cut off, connections included, and nobody else is; that outlives the agent, a damaged file and a
// hand that takes the program away. With the last CIDR the program goes.
func TestPrefilter(t *testing.T) {
	f := startFiltered(t, overlay)
	n := f.Nodes[0]
	if out := f.prefilter("list"); !strings.HasPrefix(out, "Revision: 1\n") || f.attached() != 0 {
		t.Errorf("a new node: %s, XDP mode %d", out, f.attached())
	}
	f.cut("nothing denied", false, false)
	s := startStream(t, f.near.NS, outside[false])
	if out := f.prefilter("update", "--cidr", "203.0.113.0/24"); out != "Updated 1 prefilter entries\nRevision: 2\n" {
		t.Errorf("%q", out)
	}
	f.cut("an IPv4 prefix", true, false)
	if s.alive(no) == nil {
		t.Error("a connection with a denied address goes on")
	}
	f.prefilter("update", "--revision", "2", "--cidr", outside[true].String())
	f.cut("an IPv6 address too", true, true)
	const list = "Revision: 3\n203.0.113.0/24\n2001:db8::10/128\n"
	if out := f.prefilter("list"); !strings.HasPrefix(out, list+"Dropped on eth0 (native): ") || strings.Contains(out, ": 0 packets") {
		t.Errorf("%q", out)
	}
	told(t, f.Cluster, n, "revision 3, 2 CIDRs denied on eth0 (native)")
	if out, err := f.Hypha(t.Context(), n, "metrics", "list"); err != nil || !strings.Contains(out, "cilium_prefilter_drop_count_total") {
		t.Errorf("metrics: %v\n%s", err, out)
	}

	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	f.cut("without an agent", true, true)
	if err := n.Start(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	f.cut("after a restart", true, true)
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(n.Paths.Prefilter(), 20); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	f.cut("after its file was damaged", true, true)
	if out := f.prefilter("list"); !strings.HasPrefix(out, list) {
		t.Errorf("after its file was damaged: %q", out)
	}
	told(t, f.Cluster, n, "found damaged, set aside", n.Paths.Prefilter()+".damaged")

	pins, err := filepath.Glob(filepath.Join(n.Paths.Links(), "prefilter-*"))
	if err != nil || len(pins) != 1 {
		t.Fatalf("pins %v, %v", pins, err)
	}
	have, err := link.LoadPinnedLink(pins[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(have.Detach(), have.Close(), os.Remove(pins[0])); err != nil {
		t.Fatal(err)
	}
	eventually(t, yes, "the program is back", func() error {
		if f.attached() == 0 {
			return errors.New("it is not")
		}
		return nil
	})
	f.cut("taken away by hand", true, true)

	f.prefilter("delete", "--cidr", "203.0.113.0/24")
	f.cut("IPv4 let through again", false, true)
	if out := f.prefilter("delete", "--revision", "4", "--cidr", outside[true].String()+"/128"); out != "Deleted 1 prefilter entries\nRevision: 5\n" {
		t.Errorf("%q", out)
	}
	f.cut("nothing denied any more", false, false)
	if mode := f.attached(); mode != 0 {
		t.Errorf("the device still runs a program, mode %d", mode)
	}
	told(t, f.Cluster, n, "nothing is denied, nothing attached")
}

// TestPrefilterRefuses: bad input, a stale revision and what would cut off a node change nothing, and say why.
func TestPrefilterRefuses(t *testing.T) {
	f := startFiltered(t, overlay)
	n := f.Nodes[0]
	f.prefilter("update", "--cidr", "203.0.113.0/24")
	before := strings.SplitAfter(f.prefilter("list"), "/24\n")[0]
	for _, x := range []struct {
		args []string
		want string
	}{
		{[]string{"update", "--cidr", "198.51.100.0/24", "--cidr", "198.51.100.0/33"}, `"198.51.100.0/33" is no CIDR`},
		{[]string{"update", "--revision", "1", "--cidr", "198.51.100.0/24"}, "nothing was changed: the list has changed meanwhile: revision 1 was given, it is at revision 2"},
		{[]string{"delete", "--revision", "9", "--cidr", "203.0.113.0/24"}, "revision 9 was given, it is at revision 2"},
		{[]string{"delete", "--cidr", "203.0.113.0/24,198.51.100.0/24"}, "not on the list: 198.51.100.0/24"},
		{[]string{"update", "--cidr", "198.51.100.0/24", "--cidr", f.Nodes[1].IP4.String()}, fmt.Sprintf("%s/32 covers %[1]s (node node2)", f.Nodes[1].IP4)},
		{[]string{"update", "--cidr", n.IP6.String() + "/64"}, "covers fd29::1 (node node1)"},
		{[]string{"update", "--cidr", "0.0.0.0/0"}, "0.0.0.0/0 covers 172.29.0.1 (node node1)"},
		{[]string{"update", "--cidr", "::/0"}, "::/0 covers fd29::1 (node node1)"},
	} {
		if out, err := f.Hypha(t.Context(), n, append([]string{"prefilter"}, x.args...)...); err == nil || !strings.Contains(out, x.want) {
			t.Errorf("%v: %v %s; want %q", x.args, err, out, x.want)
		}
	}
	// The agent itself does not trust who calls.
	for _, cidr := range []string{"", "x", "::ffff:10.0.0.0/104", "10.0.0.0/8\x00"} {
		_, err := n.Admin().UpdatePrefilter(t.Context(), connect.NewRequest(&agentv1.UpdatePrefilterRequest{Cidrs: []string{"198.51.100.0/24", cidr}}))
		if connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%q: %v", cidr, err)
		}
	}
	if after := strings.SplitAfter(f.prefilter("list"), "/24\n")[0]; after != before {
		t.Errorf("the list was\n%s\nand is\n%s", before, after)
	}
	f.cut("refused changes", true, false)
}

// TestPrefilterPods: what is denied is who sends on the wire. With the overlay those are nodes, and a range that has the workloads' in
// it, as lists of addresses that nobody has on the internet do, cuts off none of them; with native routing it would, and is refused.
func TestPrefilterPods(t *testing.T) {
	for _, m := range []mode{overlay, native} {
		t.Run(m.name, func(t *testing.T) {
			f := startFiltered(t, m)
			for _, cidr := range []string{"10.0.0.0/8", "fd10::/16"} {
				out, err := f.Hypha(t.Context(), f.Nodes[0], "prefilter", "update", "--cidr", cidr)
				if (err != nil) != m.native || strings.Contains(out, cidr+" covers ") != m.native {
					t.Errorf("%s: %v %s", cidr, err, out)
				}
			}
			f.cut("the range of the workloads", false, false)
		})
	}
}

// TestPrefilterMany: a list of more than 100,000 in one call, and off again.
func TestPrefilterMany(t *testing.T) {
	f := startFiltered(t, overlay)
	n := f.Nodes[0]
	var text strings.Builder
	const each = 52000
	for i := range each {
		fmt.Fprintf(&text, "11.%d.%d.7\n2001:db8:%x:%x::/64\n", i>>8, i&0xff, 0x100+i>>8, i&0xff)
	}
	fmt.Fprintf(&text, "203.0.113.0/25 ; of the server outside\n%s\n", outside[true])
	file := filepath.Join(t.TempDir(), "block.txt")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	f.prefilter("update", "--file", file)
	f.cut("two of many", true, true)
	for name, want := range map[string]int{"prefilter_exact_v1": each + 1, "prefilter_v1": each + 1} {
		rows, err := n.Rows(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]bool{}
		for _, r := range rows {
			got[r["CIDR"]] = true
		}
		if len(got) != want {
			t.Errorf("%s has %d rows, want %d", name, len(got), want)
		}
		for _, cidr := range []string{"11.0.0.7/32", "11.203.31.7/32", "2001:db8:100::/64", "2001:db8:1cb:1f::/64", "203.0.113.0/25"} {
			if strings.HasSuffix(cidr, "/32") == (name == "prefilter_exact_v1") && !got[cidr] {
				t.Errorf("%s lacks %s", name, cidr)
			}
		}
	}
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	f.cut("two of many after a restart", true, true)
	if out := f.prefilter("list", "-o", "jsonpath={.revision}"); out != "2\n" {
		t.Errorf("revision %q", out)
	}
	f.prefilter("delete", "--file", file)
	f.cut("all of them let through again", false, false)
	if f.attached() != 0 {
		t.Error("the device still runs a program")
	}
}

// TestPrefilterOff: the option keeps the commands from working, and they name it.
func TestPrefilterOff(t *testing.T) {
	c := start(t, overlay, 1, map[string]any{"enable-xdp-prefilter": false})
	for _, args := range [][]string{{"prefilter", "list"}, {"prefilter", "update", "--cidr", "192.0.2.0/24"}, {"prefilter", "delete", "--cidr", "192.0.2.0/24"}} {
		if out, err := c.Hypha(t.Context(), c.Nodes[0], args...); err == nil || !strings.Contains(out, "the prefilter is off: set enable-xdp-prefilter") {
			t.Errorf("%v: %v %s", args, err, out)
		}
	}
	told(t, c, c.Nodes[0], "enable-xdp-prefilter is off")
}
