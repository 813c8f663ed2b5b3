package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/api/agent/v1/agentv1connect"
	"github.com/hypha-net/hypha/internal/client"
	"github.com/hypha-net/hypha/internal/config"
	"github.com/hypha-net/hypha/internal/lab"
	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/paths"
	testns "github.com/hypha-net/hypha/internal/testutil/netns"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

// envLeak names the state directory to the test's other half, which runs as a process of its own: an agent belongs to the network
// namespace of its whole process.
const envLeak = "HYPHA_TEST_LEAK"

// TestCase45Goroutines: an agent that starts, attaches and detaches workloads under changing policy, has callers that go away in
// the middle, and ends, leaves no goroutine and no open file behind. `make test` runs it under the race detector too.
func TestCase45Goroutines(t *testing.T) {
	if dir := os.Getenv(envLeak); dir != "" {
		leakInside(t, dir)
		return
	}
	testns.Require(t)
	sc := score.Start(t, "45", "goroutines and open files of a whole agent after start, attach, detach, policy changes, stop")
	lives := score.Size(2, 10)
	a, _ := testns.Pair(t)
	name, err := netns.TempName("leak") // and a node name by which the next cluster sweeps what a killed run left
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(os.TempDir(), name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = errors.Join(os.RemoveAll(dir), os.RemoveAll(paths.For(dir, leakNode).BPF), lab.RemoveCgroup(paths.For(dir, leakNode)))
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestCase45Goroutines$", "-test.count=1", "-test.v")
	cmd.Env = []string{envLeak + "=" + dir, fmt.Sprintf("%s=%d", envLives, lives), "PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir()}
	out, err := a.Output(cmd)
	if err != nil || !strings.Contains(out, "--- PASS") {
		t.Fatalf("%v\n%s", err, out)
	}
	sc.Count(lives, "lives of an agent, each with 5 attachments")
	sc.Say("0 goroutines and 0 open files more after a life than before")
}

const (
	envLives = "HYPHA_TEST_LIVES"
	leakNode = "node1"
)

func leakInside(t *testing.T, dir string) {
	var lives int
	if _, err := fmt.Sscan(os.Getenv(envLives), &lives); err != nil {
		t.Fatal(err)
	}
	before := goleak.IgnoreCurrent()
	life(t, dir) // what the process opens once and for all is open then
	noGoroutine(t, before)
	for range lives {
		runtime.GC()
		files := openFiles(t)
		collect := debug.SetGCPercent(-1) // what only the collector would close is a leak
		life(t, dir)
		noGoroutine(t, before)
		sameFiles(t, files)
		debug.SetGCPercent(collect)
	}
}

// sameFiles waits for the open files to be as many as before.
func sameFiles(t *testing.T, before map[string]int) {
	t.Helper()
	var diff string
	for range 20 { // the other ends of connections close a little later
		if diff = cmp.Diff(before, openFiles(t)); diff == "" {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("open files: -before a life +after it\n%s", diff)
}

// noGoroutine waits for all goroutines but those of before to end.
func noGoroutine(t *testing.T, before goleak.Option) {
	t.Helper()
	var err error
	for range 10 { // each waits for about a second
		if err = goleak.Find(before); err == nil {
			return
		}
	}
	t.Errorf("goroutines left by an agent that has ended: %v", err)
}

// openFiles counts the open files of this process by what they are.
func openFiles(t *testing.T) map[string]int {
	t.Helper()
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dir.Close() }()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, name := range names {
		to, err := os.Readlink(filepath.Join(dir.Name(), name))
		if err != nil {
			continue // closed meanwhile
		}
		kind, _, _ := strings.Cut(to, ":[") // "socket:[123]"
		out[kind]++
	}
	return out
}

// life is an agent from its start to its end.
func life(t *testing.T, dir string) {
	t.Helper()
	p := paths.For(dir, leakNode)
	group, err := lab.Cgroup(p) // not the machine's own
	if err != nil {
		t.Fatal(err)
	}
	if group != "" {
		if err := os.MkdirAll(group, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l, err := config.LoadAgent([]string{"--state-dir=" + dir, "--node-name=" + leakNode, "--cluster-name=leak", "--node-ip=192.0.2.1,fd00:2::1",
		"--devices=eth0", "--ipv4-pool=10.10.0.0/16", "--ipv6-pool=fd10::/104", "--debug", "--log-file=" + filepath.Join(dir, "log"),
		"--prometheus-serve-addr=127.0.0.1:9962", "--pprof", "--cgroup-root=" + group, "--bpf-ct-global-max=4096", "--bpf-nat-global-max=4096", "--bpf-events-ring-size=65536",
	}, func() []string { return nil })
	if err != nil {
		t.Fatal(err)
	}
	log, level, closeLog, err := NewLogger(&l.Agent)
	if err != nil {
		t.Fatal(err)
	}
	defer closeLog()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	a, err := New(ctx, l, log, level)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	err = work(ctx, l.Agent.Paths())
	cancel()
	select {
	case end := <-done:
		err = errors.Join(err, end)
	case <-time.After(time.Minute):
		t.Fatal("the agent does not end")
	}
	if err != nil {
		t.Fatal(err)
	}
}

// work is what happens to an agent meanwhile.
func work(ctx context.Context, p paths.Paths) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	reader, admin := client.Reader(p.AgentSocket()), client.Admin(p.AdminSocket())
	for { // its sockets come a little after Run
		_, err := reader.Status(ctx, connect.NewRequest(&agentv1.StatusRequest{}))
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	// Callers that are there all the time, and end with the agent rather than by themselves.
	watch, err := reader.Monitor(ctx, connect.NewRequest(&agentv1.MonitorRequest{}))
	if err != nil {
		return err
	}
	silent, err := net.Dial("unix", p.FlowSocket())
	if err != nil {
		return err
	}
	defer func() { _ = errors.Join(watch.Close(), silent.Close()) }()
	for i := range 5 {
		if err := oneWorkload(ctx, i, reader, admin); err != nil {
			return fmt.Errorf("workload %d: %w", i, err)
		}
	}
	return nil
}

// oneWorkload comes, is policed, changes its labels and goes; another that cannot come is refused.
func oneWorkload(ctx context.Context, i int, reader agentv1connect.ReaderClient, admin agentv1connect.AdminClient) error {
	ns, err := netns.Temp(fmt.Sprintf("w%d", i))
	if err != nil {
		return err
	}
	defer func() { _ = ns.Remove() }()
	add := &agentv1.AddEndpointRequest{ContainerId: ns.Name(), Netns: ns.Path(), Interface: "eth0", Name: "w", Namespace: "default",
		Labels: []string{fmt.Sprintf("id=w%d", i)}}
	got, err := admin.AddEndpoint(ctx, connect.NewRequest(add))
	if err != nil {
		return err
	}
	if _, err := admin.AddEndpoint(ctx, connect.NewRequest(&agentv1.AddEndpointRequest{ContainerId: "nowhere", Netns: "/nowhere", Interface: "eth0"})); err == nil {
		return errors.New("an attachment to a namespace that is not there was taken")
	}
	doc := fmt.Sprintf(`[{"labels":[{"key":"name","value":"leak"}],"endpointSelector":{"matchLabels":{"id":"w%d"}},
		"ingress":[{"fromEndpoints":[{"matchLabels":{"id":"peer"}}]},{"fromCIDR":["203.0.113.%d/32"]}]}]`, i, i)
	rev, err := admin.ImportPolicy(ctx, connect.NewRequest(&agentv1.ImportPolicyRequest{Document: doc}))
	if err != nil {
		return err
	}
	if _, err := reader.WaitPolicy(ctx, connect.NewRequest(&agentv1.WaitPolicyRequest{Revision: rev.Msg.GetRevision()})); err != nil {
		return err
	}
	// Who waits for what does not come, and who listens, may go away.
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if _, err := reader.WaitPolicy(short, connect.NewRequest(&agentv1.WaitPolicyRequest{Revision: 1 << 40})); err == nil {
		return errors.New("a revision of the far future is in force")
	}
	listen, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := reader.Monitor(listen, connect.NewRequest(&agentv1.MonitorRequest{}))
	if err != nil {
		return err
	}
	cancel()
	_ = events.Close()
	if _, err := admin.UpdateEndpoint(ctx, connect.NewRequest(&agentv1.UpdateEndpointRequest{Id: got.Msg.GetEndpoint().GetId(),
		AddLabels: []string{fmt.Sprintf("more=%d", i)}})); err != nil {
		return err
	}
	if i%2 == 0 { // the namespace may go first
		if err := ns.Remove(); err != nil {
			return err
		}
	}
	if _, err := admin.DeleteEndpoint(ctx, connect.NewRequest(&agentv1.DeleteEndpointRequest{ContainerId: ns.Name(), Interface: "eth0"})); err != nil {
		return err
	}
	_, err = admin.DeletePolicy(ctx, connect.NewRequest(&agentv1.DeletePolicyRequest{Labels: []string{"name=leak"}}))
	return err
}
