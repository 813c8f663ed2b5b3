package operator

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/hypha-net/hypha/internal/testutil/kubeapi"
)

// log is what a process has said so far.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Contains(l.b.Bytes(), []byte(s))
}

// process is an operator.
type process struct {
	cmd  *exec.Cmd
	log  log
	done chan struct{}
}

func (p *process) leads() bool { return p.log.has("Successfully acquired lease") }

func start(t *testing.T, binary string, api *kubeapi.Server) *process {
	t.Helper()
	p := &process{done: make(chan struct{})}
	p.cmd = exec.Command(binary, "--k8s-kubeconfig-path="+api.Kubeconfig, "--operator-prometheus-serve-addr=", "--operator-api-serve-addr=",
		"--cluster-pool-ipv4-cidr=10.0.0.0/16", "--leader-election-lease-duration="+lease.String(), "--leader-election-renew-deadline=3s",
		"--leader-election-retry-period=500ms")
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(p.done); _ = p.cmd.Wait() }()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
	})
	return p
}

const lease = 4 * time.Second

// leader waits until one of the processes leads, and returns it and the other.
func leader(t *testing.T, limit time.Duration, a, b *process) (leads, waits *process) {
	t.Helper()
	kubeapi.Eventually(t, limit, "leader", func() error {
		switch {
		case a.leads():
			leads, waits = a, b
		case b.leads():
			leads, waits = b, a
		default:
			return fmt.Errorf("nobody leads:\n%s%s", a.log.b.String(), b.log.b.String())
		}
		return nil
	})
	return leads, waits
}

// TestContend has real processes lead one after the other: one that is killed, and one that sleeps through the end of its lease and
// does not know. Every node gets one range, once, and keeps it.
func TestContend(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs operators")
	}
	api := kubeapi.Start(t)
	binary := filepath.Join(t.TempDir(), "hypha-operator")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/hypha-net/hypha/cmd/hypha-operator").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	a, b := start(t, binary, api), start(t, binary, api)
	first, second := leader(t, time.Minute, a, b)
	made := 0
	nodes := func() {
		for range 10 {
			made++
			api.Apply(t, fmt.Sprintf("apiVersion: cilium.io/v2\nkind: CiliumNode\nmetadata: {name: n%02d}\nspec: {}\n", made))
		}
	}
	served := func(limit time.Duration) {
		t.Helper()
		kubeapi.Eventually(t, limit, "pod ranges", func() error { return distinct(api.List(t, "cilium.io/v2", "CiliumNode"), made) })
	}
	nodes()
	served(30 * time.Second)

	if err := first.cmd.Process.Signal(os.Kill); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	nodes()
	served(2*lease + 5*time.Second)
	t.Logf("served again %s after the leader was killed, its lease was of %s", time.Since(killed).Round(100*time.Millisecond), lease)
	if !second.leads() {
		t.Error("ranges were given by nobody who leads")
	}

	third := start(t, binary, api)
	if err := second.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	nodes()
	served(2*lease + 15*time.Second)
	if !third.leads() {
		t.Error("the one that sleeps still leads")
	}
	if err := second.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	nodes() // both may believe that they lead
	select {
	case <-second.done:
	case <-time.After(2 * lease):
		t.Error("who lost the lease goes on")
	}
	served(30 * time.Second)
}

// distinct says whether so many nodes have one range each, all different, each given by one write.
func distinct(all *unstructured.UnstructuredList, want int) error {
	if len(all.Items) != want {
		return fmt.Errorf("%d nodes", len(all.Items))
	}
	had := map[netip.Prefix]string{}
	for _, o := range all.Items {
		ranges, _, err := unstructured.NestedStringSlice(o.Object, "spec", "ipam", "podCIDRs")
		if err != nil || len(ranges) != 1 {
			return fmt.Errorf("%s has %v: %w", o.GetName(), ranges, err)
		}
		p, err := netip.ParsePrefix(ranges[0])
		if err != nil {
			return err
		}
		if other := had[p]; other != "" {
			return fmt.Errorf("%s and %s both have %s", other, o.GetName(), p)
		}
		had[p] = o.GetName()
		if o.GetGeneration() != 2 { // made, and given a range
			return errors.New(o.GetName() + " was written more than once")
		}
	}
	return nil
}
