// Package standalone is the demo as a place for connectivity tests: its nodes are namespaces of this machine, so commands run in them
// directly, and policies and services go to the agents' own sockets.
package standalone

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	flowpb "github.com/hypha-net/hypha/api/flow"
	"github.com/hypha-net/hypha/internal/client"
	"github.com/hypha-net/hypha/internal/connectivity"
	"github.com/hypha-net/hypha/internal/demo"
	"github.com/hypha-net/hypha/internal/process"
	"github.com/hypha-net/hypha/internal/workload"
)

// Place is a demo that is up. It is a connectivity.Place.
type Place struct {
	demo    *demo.Demo
	options connectivity.Options
	hypha   string // this program

	mu       sync.Mutex
	applied  []connectivity.Document
	deployed bool       // there may be something to remove
	server   process.ID // outside, beside the demo's own
	addrs    []string   // added outside
	routes   []string   // added outside
}

// New is the demo in a directory.
func New(dir string, o connectivity.Options) (*Place, error) {
	d, err := demo.New(demo.Config{Dir: dir})
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find hypha's own binary: %w", err)
	}
	return &Place{demo: d, options: o, hypha: self}, nil
}

// Name implements connectivity.Place.
func (p *Place) Name() string { return "demo" }

// Exec implements connectivity.Place.
func (p *Place) Exec(ctx context.Context, from *connectivity.Peer, args ...string) ([]byte, error) {
	argv := append([]string{"demo", "--dir", p.demo.Dir(), "exec", from.Handle.(string), "--", p.hypha, "workload"}, args...)
	return p.run(ctx, argv...)
}

func (p *Place) run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, p.hypha, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return out.Bytes(), nil
	case errors.As(err, &exit) && exit.Exited():
		return out.Bytes(), &connectivity.ExitError{Code: exit.ExitCode(), Stderr: strings.TrimSpace(errOut.String())}
	}
	return nil, fmt.Errorf("run %s: %w", strings.Join(args, " "), err)
}

// Drops implements connectivity.Place.
func (p *Place) Drops(ctx context.Context, since time.Duration) ([]*flowpb.Flow, error) {
	out, err := p.run(ctx, "observe", "--state-dir", p.demo.Dir(), "--since", since.String(), "--verdict", "DROPPED", "-o", "jsonpb", "--silent-errors")
	if err != nil {
		return nil, err
	}
	return connectivity.ParseFlows(out)
}

// admin is the first node's agent: what it is told holds for the cluster.
func (p *Place) admin() agentAdmin {
	return client.Admin(p.demo.Nodes()[0].Paths.AdminSocket())
}

type agentAdmin interface {
	ImportPolicy(context.Context, *connect.Request[agentv1.ImportPolicyRequest]) (*connect.Response[agentv1.ImportPolicyResponse], error)
	DeletePolicy(context.Context, *connect.Request[agentv1.DeletePolicyRequest]) (*connect.Response[agentv1.DeletePolicyResponse], error)
	UpdateService(context.Context, *connect.Request[agentv1.UpdateServiceRequest]) (*connect.Response[agentv1.UpdateServiceResponse], error)
	DeleteService(context.Context, *connect.Request[agentv1.DeleteServiceRequest]) (*connect.Response[agentv1.DeleteServiceResponse], error)
}

// Apply implements connectivity.Place.
func (p *Place) Apply(ctx context.Context, policies []connectivity.Document) error {
	var text bytes.Buffer
	for _, d := range policies {
		text.WriteString("---\n")
		text.Write(d.YAML())
	}
	p.mu.Lock()
	p.applied = append(p.applied, policies...)
	p.mu.Unlock()
	resp, err := p.admin().ImportPolicy(ctx, connect.NewRequest(&agentv1.ImportPolicyRequest{Document: text.String(), Filename: "connectivity test"}))
	if err != nil {
		return fmt.Errorf("import: %s", client.Message(err))
	}
	return p.wait(ctx, resp.Msg.GetRevision())
}

// wait waits until all nodes enforce a revision.
func (p *Place) wait(ctx context.Context, revision uint64) error {
	for _, n := range p.demo.Nodes() {
		if _, err := client.Reader(n.Paths.AgentSocket()).WaitPolicy(ctx, connect.NewRequest(&agentv1.WaitPolicyRequest{Revision: revision})); err != nil {
			return fmt.Errorf("wait for policy on %s: %s", n.Name, client.Message(err))
		}
	}
	return nil
}

// Remove implements connectivity.Place.
func (p *Place) Remove(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var last uint64
	for len(p.applied) > 0 {
		d := p.applied[len(p.applied)-1]
		key := d.Kind + "/" + d.Name
		if d.Namespace != "" {
			key = d.Kind + "/" + d.Namespace + "/" + d.Name
		}
		resp, err := p.admin().DeletePolicy(ctx, connect.NewRequest(&agentv1.DeletePolicyRequest{Name: key}))
		if err != nil && connect.CodeOf(err) != connect.CodeNotFound {
			return fmt.Errorf("delete %s: %s", key, client.Message(err))
		}
		if err == nil {
			last = max(last, resp.Msg.GetRevision())
		}
		p.applied = p.applied[:len(p.applied)-1]
	}
	return p.wait(ctx, last)
}

// leftover finds the policies of an earlier run that was killed.
func (p *Place) leftover(ctx context.Context) error {
	got, err := client.Reader(p.demo.Nodes()[0].Paths.AgentSocket()).GetPolicy(ctx, connect.NewRequest(&agentv1.GetPolicyRequest{}))
	if err != nil {
		return fmt.Errorf("ask for policies: %s", client.Message(err))
	}
	var rules []struct {
		Labels []struct{ Key, Value string } `json:"labels"`
	}
	if err := json.Unmarshal([]byte(got.Msg.GetJson()), &rules); err != nil {
		return fmt.Errorf("read policies: %w", err)
	}
	const prefix = "io.cilium.k8s.policy."
	ns := p.options.Namespace
	for _, r := range rules {
		ls := map[string]string{}
		for _, l := range r.Labels {
			ls[strings.TrimPrefix(l.Key, prefix)] = l.Value
		}
		d := connectivity.Document{Kind: ls["derived-from"], Namespace: ls["namespace"], Name: ls["name"]}
		if d.Kind != "" && (d.Namespace == ns || d.Namespace == "" && strings.HasPrefix(d.Name, ns+"-")) {
			p.applied = append(p.applied, d)
		}
	}
	p.applied = append(p.applied, connectivity.Document{Kind: "CiliumCIDRGroup", Name: ns + "-external"}) // groups are not listed
	return p.Remove(ctx)
}

// ports of the demo's servers, and the name of the first.
const (
	port     = workload.HTTPPort
	portName = "http"
)

var _ connectivity.Place = (*Place)(nil)

func prefixOf(a netip.Addr) string { return netip.PrefixFrom(a, a.BitLen()).String() }
