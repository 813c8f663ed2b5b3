package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/hypha-net/hypha/internal/lab"
	"github.com/hypha-net/hypha/internal/testutil/score"
	"github.com/hypha-net/hypha/internal/workload"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// kubeRig is a cluster over an API server under traffic: streams of a friend from both nodes to web, and a stranger who knocks
// without a pause and must never get in.
type kubeRig struct {
	*kube
	web, stranger *cluster.Pod
	streams       []*stream
	knocks        []func() (tried, passed uint64)
	serial        int
}

func startKubeRig(t *testing.T) *kubeRig {
	t.Helper()
	r := &kubeRig{kube: startKube(t)}
	r.api.Apply(t, `{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: friends, namespace: shop}, spec: {podSelector: {matchLabels: {app: web}},
  ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}], ports: [{port: `+fmt.Sprint(workload.EchoPort)+`}]}]}}`)
	r.web = r.pod("shop", "web", 0, "{app: web}")
	near, far := r.pod("shop", "near", 0, "{app: friend}"), r.pod("shop", "far", 1, "{app: friend}")
	r.stranger = r.pod("shop", "stranger", 1, "{app: stranger}")
	for _, from := range []*cluster.Pod{near, far} {
		for _, v6 := range []bool{false, true} {
			to := r.web.Addr(v6)
			eventually(t, 2*yes, "a friend", func() error { return echo(from.NS, "tcp", to, no) })
			r.streams = append(r.streams, startStream(t, from.NS, to))
		}
	}
	r.reach("a stranger", r.stranger, r.web, false)
	for _, v6 := range []bool{false, true} {
		r.knocks = append(r.knocks, knock(t, r.stranger.NS, r.web.Addr(v6)))
	}
	return r
}

// alive says that traffic flows.
func (r *kubeRig) alive(when string) {
	r.t.Helper()
	for i, s := range r.streams {
		if err := s.alive(yes); err != nil {
			r.t.Errorf("%s: stream %d: %v", when, i, err)
		}
	}
}

// judged ends the knocking: nothing may have passed.
func (r *kubeRig) judged() (tried uint64) {
	r.t.Helper()
	for _, stop := range r.knocks {
		n, passed := stop()
		tried += n
		if passed > 0 {
			r.t.Errorf("%d of %d forbidden connections passed", passed, n)
		}
	}
	return tried
}

// fresh makes a pod of labels that the cluster does not have yet.
func (r *kubeRig) fresh(node int) *cluster.Pod {
	r.t.Helper()
	r.serial++
	return r.pod("shop", fmt.Sprintf("fresh%d", r.serial), node, fmt.Sprintf("{app: fresh, serial: s%d}", r.serial))
}

// gone deletes a pod as the kubelet does.
func (r *kubeRig) gone(p *cluster.Pod) {
	r.t.Helper()
	r.api.Delete(r.t, "v1", "Pod", "shop", p.Name)
	if err := r.Delete(r.t.Context(), p); err != nil {
		r.t.Error(err)
	}
}

// TestCase11APIServerAway: the API server goes away, agents are killed and start while it is, policy changes there before they can hear
// of it. The last policy stays in force, new workloads are refused, and what changed is in force soon after it is back.
func TestCase11APIServerAway(t *testing.T) {
	rounds := score.Size(2, 12)
	c := score.Start(t, "11", "Kubernetes: API server away, agents killed and started meanwhile, policy changed before they hear of it")
	r := startKubeRig(t)
	var late []time.Duration
	for round := range rounds {
		// Its own end makes it forget its watches' history, so that agents have to list everything again.
		restarted := round%2 == 1
		if restarted {
			r.api.Stop()
		} else {
			r.front.Close()
		}
		for i, n := range r.Nodes {
			if err := n.Kill(); err != nil {
				t.Fatal(err)
			}
			r.alive("without " + n.Name)
			if err := n.Launch(); err != nil {
				t.Fatal(err)
			}
			eventually(t, 3*yes, n.Name+" starts without the API server", func() error { _, err := n.Status(t.Context()); return err })
			r.serial++
			p, err := r.Prepare(cluster.PodSpec{Name: fmt.Sprintf("unheard%d", r.serial), Namespace: "shop", Node: i})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			begun := time.Now()
			err = r.Attach(ctx, p)
			cancel()
			if took := time.Since(begun); err == nil || took > 6*time.Second || p.NS.HasLink("eth0") {
				t.Errorf("a new pod while it is away, after %s: %v, device %v", took, err, p.NS.HasLink("eth0"))
			}
			if err := r.Delete(t.Context(), p); err != nil {
				t.Error(err)
			}
		}
		r.alive("away")
		if restarted {
			r.api.Again(t)
		}
		// Friends may come to the web port, and in the next round not any more.
		policy := fmt.Sprintf(`{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: web, namespace: shop}, spec: {endpointSelector: {matchLabels: {app: web}},
			ingress: [{fromEndpoints: [{matchLabels: {app: friend}}], toPorts: [{ports: [{port: "%d", protocol: TCP}]}]}]}}`, workload.HTTPPort)
		allowed := round%2 == 0
		if allowed {
			r.api.Apply(t, policy)
		} else {
			r.api.Delete(t, "cilium.io/v2", "CiliumNetworkPolicy", "shop", "web")
		}
		begun := time.Now()
		if !restarted {
			l, err := r.World.Listen("tcp", frontAddr)
			if err != nil {
				t.Fatal(err)
			}
			r.front.Open(l)
		}
		eventually(t, 45*time.Second, "what changed while it was away", func() error {
			_, err := fetch(r.Pod("near").NS, r.web.Addr(false), workload.HTTPPort, no)
			if allowed || !dropped(err) && err != nil {
				return err
			}
			if err == nil {
				return errors.New("still passes")
			}
			return nil
		})
		late = append(late, time.Since(begun))
		for _, n := range r.Nodes {
			if err := n.WaitReady(t.Context(), 2); err != nil {
				t.Fatal(err)
			}
		}
		r.alive("back")
		r.gone(r.fresh(round % 2))
	}
	if worst := slices.Max(late); worst > 30*time.Second {
		t.Errorf("what had changed was in force %s after the API server was back", worst)
	}
	c.Count(rounds, "times away")
	c.Say("%d streams and none reset, 0 of %d forbidden connections passed, new pods refused; what changed meanwhile in force at most %s after it was back",
		len(r.streams), r.judged(), slices.Max(late).Round(time.Millisecond))
}

// operator starts hypha-operator, which collects identities as fast as it can.
func (r *kubeRig) operator() *exec.Cmd {
	r.t.Helper()
	log, err := os.OpenFile(filepath.Join(r.Dir, "operator.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(filepath.Join(bin.Dir, "hypha-operator"), "--k8s-kubeconfig-path="+r.api.Kubeconfig, "--operator-prometheus-serve-addr=",
		"--operator-api-serve-addr=", "--ipam=kubernetes", "--identity-gc-interval=500ms", "--identity-heartbeat-timeout=1s",
		"--leader-election-lease-duration=3s", "--leader-election-renew-deadline=2s", "--leader-election-retry-period=300ms")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { endOperator(cmd) })
	return cmd
}

func endOperator(cmd *exec.Cmd) {
	if cmd.ProcessState == nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// numbers follows which labels have which number, and notes a number that has been given to others.
type numbers struct {
	mu     sync.Mutex
	labels map[string]string // by number, ever
	now    map[string]bool
	reused []string
}

func (n *numbers) look(l *unstructured.UnstructuredList) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.now = map[string]bool{}
	for _, o := range l.Items {
		id, labels := o.GetName(), fmt.Sprint(o.Object["security-labels"])
		n.now[id] = true
		if was, ok := n.labels[id]; ok && was != labels {
			n.reused = append(n.reused, fmt.Sprintf("%s: %s, then %s", id, was, labels))
		}
		n.labels[id] = labels
	}
}

// TestCase13OperatorKilled: the operator is killed again and again while pods of ever new labels come and go, so that it always has
// identities to collect. Traffic does not notice, and no number is given to other labels.
func TestCase13OperatorKilled(t *testing.T) {
	rounds := score.Size(6, 60)
	c := score.Start(t, "13", "Kubernetes: operator killed -9 while pods of new labels come and go, identities collected as fast as it can")
	rng := c.Rand()
	r := startKubeRig(t)
	seen := &numbers{labels: map[string]string{}}
	collected := 0
	cmd := r.operator()
	for range rounds {
		pods := []*cluster.Pod{r.fresh(0), r.fresh(1)}
		seen.look(r.api.List(t, "cilium.io/v2", "CiliumIdentity"))
		for _, p := range pods {
			r.gone(p)
		}
		pauseFor(rng, 4*time.Second)
		endOperator(cmd)
		r.alive("without the operator")
		r.gone(r.fresh(rng.IntN(2))) // no agent needs it for that
		seen.look(r.api.List(t, "cilium.io/v2", "CiliumIdentity"))
		cmd = r.operator()
	}
	eventually(t, time.Minute, "collected", func() error {
		seen.look(r.api.List(t, "cilium.io/v2", "CiliumIdentity"))
		if len(seen.now) > 3 { // web, friend, stranger
			return fmt.Errorf("%d identities are left", len(seen.now))
		}
		return nil
	})
	collected = len(seen.labels) - len(seen.now)
	for _, ep := range r.api.List(t, "cilium.io/v2", "CiliumEndpoint").Items {
		id, _, err := unstructured.NestedInt64(ep.Object, "status", "identity", "id")
		if err != nil || !seen.now[fmt.Sprint(id)] {
			t.Errorf("pod %s has identity %d, which was collected (%v)", ep.GetName(), id, err)
		}
	}
	if len(seen.reused) > 0 {
		t.Errorf("numbers given to other labels:\n%s", strings.Join(seen.reused, "\n"))
	}
	r.alive("in the end")
	c.Count(rounds, "kills")
	c.Say("%d streams and none reset, 0 of %d forbidden connections passed; %d identities collected, none in use, no number reused", len(r.streams), r.judged(), collected)
}

func pauseFor(rng *rand.Rand, d time.Duration) { time.Sleep(time.Duration(rng.Int64N(int64(d)))) }

// envBefore names a directory with an earlier build's binaries.
const envBefore = "HYPHA_E2E_BEFORE"

// TestCase10Upgrade: agents are replaced by those of an earlier build and back, one node at a time, under traffic.
func TestCase10Upgrade(t *testing.T) {
	rounds := score.Size(1, 10)
	c := score.Start(t, "10", "Kubernetes: agents replaced by an earlier build's and back, one node at a time")
	dir := os.Getenv(envBefore)
	if dir == "" {
		t.Skipf("%s names no directory with an earlier build's binaries", envBefore)
	}
	before, err := lab.FindBinaries(dir)
	if err != nil {
		t.Fatal(err)
	}
	r := startKubeRig(t)
	for round := range rounds {
		for _, binary := range []string{before.Agent, bin.Agent} {
			for i, n := range r.Nodes {
				if err := n.Stop(); err != nil {
					t.Fatal(err)
				}
				n.Use(binary)
				if err := n.Start(t.Context(), 2); err != nil {
					t.Fatal(err)
				}
				when := fmt.Sprintf("round %d, %s by %s", round, n.Name, binary)
				r.alive(when)
				r.gone(r.fresh(i))
			}
		}
	}
	c.Count(4*rounds, "replacements")
	c.Say("%d streams and none reset, 0 of %d forbidden connections passed, a new pod attached by each agent", len(r.streams), r.judged())
}
