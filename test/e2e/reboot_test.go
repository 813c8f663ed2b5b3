package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/client"
	"github.com/hypha-net/hypha/internal/lab"
	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

// envState names a directory that outlives the machine's resets.
const envState = "HYPHA_E2E_STATE"

const rebootPort = 9000

// TestCase14Reboot is one start of a machine that is reset without warning after it, again and again: the agent comes back on
// its state alone while the runtime attaches the pods anew under traffic, and nothing passes that policy denies. It leaves
// everything running, for the reset to end.
func TestCase14Reboot(t *testing.T) {
	c := score.Start(t, "14", "node reset without warning, pods attached anew under traffic")
	dir := os.Getenv(envState)
	if dir == "" {
		c.Say("made by make test-kernels")
		t.Skip("needs a kernel that may be reset: make test-kernels does that in QEMU")
	}
	boot := countBoot(t, filepath.Join(dir, "boots"))
	if _, err := lab.MountBPF(); err != nil {
		t.Fatal(err)
	}
	node := rebootNode(t)
	agent := lab.Agent{Binary: bin.Agent, NS: node, StateDir: dir, Node: "node1", Config: filepath.Join(dir, "agent.yaml"), Log: filepath.Join(dir, "agent.log"),
		Options: map[string]any{"cluster-name": "e2e", "devices": []string{"eth0"}, "node-ip": []string{"172.29.0.1", "fd29::1"},
			"ipv4-pool": "10.10.0.0/16", "ipv6-pool": "fd10::/104"}}
	pods := map[string]*rebootPod{}
	for _, name := range []string{"stranger", "friend", "app"} {
		pods[name] = newRebootPod(t, dir, name, boot)
		if boot > 0 { // as the runtime does with what it finds dead
			old := pods[name].att
			old.ContainerID, old.NetNS = fmt.Sprintf("%s-%d", name, boot-1), ""
			if err := old.Del(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	process, err := agent.Start()
	if err != nil {
		t.Fatal(err)
	}
	if boot == 0 {
		waitRebooted(t, agent, process)
		doc := strings.ReplaceAll(allow("friend", "app", rebootPort), "TCP", "UDP")
		if _, err := client.Admin(agent.Paths().AdminSocket()).ImportPolicy(t.Context(), connect.NewRequest(&agentv1.ImportPolicyRequest{Document: doc, Filename: "test"})); err != nil {
			t.Fatal(err)
		}
	}
	pods["stranger"].add(t)
	pods["friend"].add(t)
	got := startCounter(t, pods["app"].ns, rebootPort)
	targets := neighbours(pods["stranger"].addrs)
	sent := everywhere(t, pods["stranger"].ns, targets)
	pods["app"].add(t)
	for _, to := range pods["app"].addrs {
		if !slices.Contains(targets, to) {
			t.Errorf("%s was not tried", to)
		}
		eventually(t, time.Minute, "what is allowed passes", func() error {
			conn, err := pods["friend"].ns.DialContext(t.Context(), "udp", netip.AddrPortFrom(to, rebootPort).String())
			if err != nil {
				return err
			}
			_, err = conn.Write([]byte("friend"))
			_ = conn.Close()
			time.Sleep(50 * time.Millisecond)
			if got.of(pods["friend"].addrs) == 0 {
				return errors.New("nothing came")
			}
			return err
		})
	}
	time.Sleep(2 * time.Second)
	waitRebooted(t, agent, process)
	if n := got.of(pods["stranger"].addrs); n > 0 {
		t.Errorf("%d datagrams passed against policy", n)
	}
	leftovers(t, agent, node)
	n := sent()
	c.Count(int(n), "denied datagrams")
	c.Say("start %d: %d passed", boot, got.of(pods["stranger"].addrs))
	if n == 0 {
		t.Error("nothing was tried")
	}
}

// countBoot returns how many starts there were before this one, and notes this one on the disk.
func countBoot(t *testing.T, path string) (boots int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("."); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return int(st.Size())
}

// rebootNode makes the node's namespace and the network it is on.
func rebootNode(t *testing.T) *netns.NS {
	t.Helper()
	world, err := netns.Temp("world")
	if err != nil {
		t.Fatal(err)
	}
	node, err := netns.Temp("node1")
	if err != nil {
		t.Fatal(err)
	}
	err = netns.Veth(world, "node1", node, "eth0")
	err = errors.Join(err, world.AddAddr("node1", "172.29.0.254/24", "fd29::fe/64"), node.AddAddr("eth0", "172.29.0.1/24", "fd29::1/64"))
	err = errors.Join(err, node.AddRoute("default", "172.29.0.254"), node.AddRoute("default", "fd29::fe"))
	if err != nil {
		t.Fatal(err)
	}
	return node
}

type rebootPod struct {
	ns    *netns.NS
	att   lab.Attachment
	addrs []netip.Addr
}

func newRebootPod(t *testing.T, dir, name string, boot int) *rebootPod {
	t.Helper()
	ns, err := netns.Temp(name)
	if err != nil {
		t.Fatal(err)
	}
	return &rebootPod{ns: ns, att: lab.Attachment{CNI: bin.CNI, StateDir: dir, Node: "node1", ContainerID: fmt.Sprintf("%s-%d", name, boot),
		NetNS: ns.Path(), Pod: name, Namespace: "default", Labels: []string{"id=" + name}}}
}

// add attaches the pod as soon as the agent serves.
func (p *rebootPod) add(t *testing.T) {
	t.Helper()
	eventually(t, 2*time.Minute, "attach "+p.att.Pod, func() (err error) {
		p.addrs, err = p.att.Add(t.Context())
		return err
	})
}

func waitRebooted(t *testing.T, agent lab.Agent, process *lab.Process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if _, err := agent.WaitReady(ctx, process, 1); err != nil {
		t.Fatalf("%v\n%s", err, lab.Tail(agent.Log, 20))
	}
}

// neighbours are the addresses that differ from these in the last byte: a pod that comes later gets one of them.
func neighbours(addrs []netip.Addr) (out []netip.Addr) {
	for _, a := range addrs {
		b := a.AsSlice()
		for last := range 256 {
			b[len(b)-1] = byte(last)
			n, _ := netip.AddrFromSlice(b)
			out = append(out, n)
		}
	}
	return out
}

// everywhere sends datagrams to all of these in turn, without a pause, until the test or the returned function ends it.
func everywhere(t *testing.T, from *netns.NS, to []netip.Addr) (stop func() uint64) {
	t.Helper()
	pc, err := from.ListenPacket("udp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan uint64, 1)
	go func() {
		var n uint64
		for i := 0; ; i++ {
			_, err := pc.WriteTo([]byte("stranger"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to[i%len(to)], rebootPort)))
			if errors.Is(err, net.ErrClosed) {
				done <- n
				return
			}
			if err == nil {
				n++
			}
		}
	}()
	t.Cleanup(func() { _ = pc.Close() })
	return func() uint64 { _ = pc.Close(); return <-done }
}

// leftovers looks for what an earlier start of the machine has left: endpoints, and pinned links of devices that are gone.
func leftovers(t *testing.T, agent lab.Agent, node *netns.NS) {
	t.Helper()
	resp, err := client.Reader(agent.Paths().AgentSocket()).ListEndpoints(t.Context(), connect.NewRequest(&agentv1.ListEndpointsRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(resp.Msg.GetEndpoints()); n != 3 {
		t.Errorf("%d endpoints, want 3: %v", n, resp.Msg.GetEndpoints())
	}
	pins, err := os.ReadDir(agent.Paths().Links())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pins {
		var index int
		f := strings.Split(p.Name(), "-")
		if len(f) != 3 {
			t.Errorf("a pin is called %s", p.Name())
			continue
		}
		if _, err := fmt.Sscan(f[1], &index); err != nil {
			t.Errorf("a pin is called %s", p.Name())
		}
		if err := node.Do(func() error { _, err := net.InterfaceByIndex(index); return err }); err != nil {
			t.Errorf("pin %s is stale: %v", p.Name(), err)
		}
	}
}
