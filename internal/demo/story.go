package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/deploy/demo"
	"github.com/hypha-net/hypha/internal/client"
	"github.com/hypha-net/hypha/internal/paths"
	"github.com/hypha-net/hypha/internal/workload"
)

// probeTimeout is how long a probe waits before it counts as denied: a drop is silent.
const probeTimeout = time.Second

// policy imports the story's rule unless it is there, and waits until all nodes enforce it.
func (d *Demo) policy(ctx context.Context) error {
	first := paths.For(d.dir, nodes[0].name)
	have, err := client.Reader(first.AgentSocket()).GetPolicy(ctx, connect.NewRequest(&agentv1.GetPolicyRequest{Labels: []string{"name=" + demo.PolicyName}}))
	if err != nil && connect.CodeOf(err) != connect.CodeNotFound {
		return fmt.Errorf("ask for the policy: %s", client.Message(err))
	}
	var revision uint64
	if err == nil && have.Msg.GetCount() > 0 {
		revision = have.Msg.GetRevision()
	} else {
		imp, err := client.Admin(first.AdminSocket()).ImportPolicy(ctx, connect.NewRequest(&agentv1.ImportPolicyRequest{
			Document: string(demo.Policy), Filename: d.policyFile(), Replace: true,
		}))
		if err != nil {
			return fmt.Errorf("import the policy: %s", client.Message(err))
		}
		revision = imp.Msg.GetRevision()
	}
	return each(ctx, nodes, func(ctx context.Context, n node) error {
		r := client.Reader(paths.For(d.dir, n.name).AgentSocket())
		if _, err := r.WaitPolicy(ctx, connect.NewRequest(&agentv1.WaitPolicyRequest{Revision: revision})); err != nil {
			return fmt.Errorf("wait for the policy on %s: %s", n.name, client.Message(err))
		}
		return nil
	})
}

// A probe of the story: HTTP from a pod to app1.
type probe struct {
	from pod
	want bool // allowed
	took time.Duration
	err  error
}

func (p *probe) allowed() bool { return p.err == nil }

// denied says whether the probe ended as a dropped one does, in silence.
func (p *probe) denied() bool {
	var ne net.Error
	return errors.Is(p.err, context.DeadlineExceeded) || errors.As(p.err, &ne) && ne.Timeout()
}

// probe tries what the policy is about, all at once, with the first address of app1.
func (d *Demo) probe(ctx context.Context, to netip.Addr) []*probe {
	var out []*probe
	for _, p := range d.pods() {
		if p.Name != "app1" && isStory(p.Name) {
			out = append(out, &probe{from: p, want: strings.HasPrefix(p.Name, "app2")})
		}
	}
	var wg sync.WaitGroup
	for _, p := range out {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, probeTimeout)
			defer cancel()
			ns, err := d.open(p.from.Name)
			if err != nil {
				p.err = err
				return
			}
			begin := time.Now()
			_, p.err = workload.Client{Dial: ns.DialContext}.Get(ctx, "http://"+netip.AddrPortFrom(to, workload.HTTPPort).String()+"/")
			p.took = time.Since(begin)
		})
	}
	wg.Wait()
	return out
}

func isStory(name string) bool {
	for _, p := range story {
		if p.Name == name {
			return true
		}
	}
	return false
}

// tell prints what there is and what was tried. A probe that went against the policy is an error.
func (d *Demo) tell(ctx context.Context, begin time.Time) error {
	app1, ok := d.find("app1")
	if !ok || len(app1.Addrs) == 0 {
		return errors.New("pod app1 is missing: `hypha demo up` again")
	}
	probes := d.probe(ctx, app1.Addrs[0])
	d.say("The demo is up after %.1f s: %d nodes with an agent each, %d pods, one policy, one service.\n", time.Since(begin).Seconds(), len(nodes), len(d.pods()))
	for _, n := range nodes {
		d.say("  %-6s %s, %s", n.name, n.ip4, n.ip6)
		for _, p := range d.pods() {
			if p.Node == n.name {
				d.say("    %-13s %-28s %s", p.Name, joinAddrs(p.Addrs), strings.Join(p.Labels, ","))
			}
		}
	}
	d.say("  %-6s %s, %s (outside the cluster)\n", worldName, outside4, outside6)
	d.say("The policy %s (%s) lets pods with id=app2 reach app1 on TCP port 80, and nobody else:\n", demo.PolicyName, d.policyFile())
	var wrong []string
	for _, p := range probes {
		what := "FAILED: " + fmt.Sprint(p.err)
		switch {
		case p.allowed() && p.want:
			what = fmt.Sprintf("allowed (%.1f ms)", float64(p.took.Microseconds())/1000)
		case p.allowed():
			what = "ALLOWED, against the policy"
		case p.denied() && !p.want:
			what = fmt.Sprintf("denied (no answer within %s)", probeTimeout)
		case p.denied():
			what = "DENIED, against the policy"
		}
		d.say("  %-11s on %s -> app1:80  %s", p.from.Name, p.from.Node, what)
		if p.allowed() != p.want || !p.allowed() && !p.denied() {
			wrong = append(wrong, p.from.Name)
		}
	}
	me := d.self()
	demoDir, stateDir := "", ""
	if d.dir != paths.DemoDir { // another than what the commands look for by themselves
		demoDir, stateDir = " --dir "+d.dir, " --state-dir "+d.dir
	}
	d.say("The service %s (%s:80) is app1, for processes on the nodes and in their pods:\n  %s demo%s exec app2 -- %s", serviceName, serviceIP, me, demoDir, d.getCommand(serviceName))
	d.say("\nThree commands to try:\n  %s demo%s exec app3 -- %s\n  %s%s observe --verdict DROPPED --last 5\n  %s%s policy trace app3 app1 --port 80\n\nThe end: %s demo%s down",
		me, demoDir, d.getCommand("app1"), me, stateDir, me, stateDir, me, demoDir)
	if len(wrong) > 0 {
		return fmt.Errorf("the probes from %s went otherwise than the policy says: see `%s demo status` and %s", strings.Join(wrong, ", "), me, filepath.Join(d.dir, "log"))
	}
	return nil
}

// self is how the user can call this program.
func (d *Demo) self() string {
	if p, err := exec.LookPath("hypha"); err == nil && sameFile(p, d.bin.Hypha) {
		return "hypha"
	}
	if wd, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(wd, d.bin.Hypha); err == nil && !strings.HasPrefix(rel, "..") {
			return "./" + rel
		}
	}
	return d.bin.Hypha
}

// getCommand fetches a URL with what this machine has.
func (d *Demo) getCommand(host string) string {
	if _, err := exec.LookPath("curl"); err == nil {
		return "curl -sS --max-time 2 " + host
	}
	return d.bin.Hypha + " workload get " + host
}

func sameFile(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

func joinAddrs(addrs []netip.Addr) string {
	s := make([]string, len(addrs))
	for i, a := range addrs {
		s[i] = a.String()
	}
	return strings.Join(s, ", ")
}
