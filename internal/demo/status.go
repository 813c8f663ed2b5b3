package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/client"
	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/paths"
)

// PodInfo is a pod as `demo pods` shows it.
type PodInfo struct {
	Name      string       `json:"name"`
	Namespace string       `json:"namespace"`
	Node      string       `json:"node"`
	Addresses []netip.Addr `json:"addresses"`
	Labels    []string     `json:"labels"`
	Identity  uint32       `json:"identity"` // 0: not known
	Endpoint  uint32       `json:"endpoint"` // number on its node, 0: not attached
	State     string       `json:"state"`    // of the endpoint, or "missing", or "unknown" while the agent is down
	Serving   bool         `json:"serving"`  // its servers run
	NetNS     string       `json:"netns"`
	Container string       `json:"containerID"`
}

// NodeInfo is a node as `demo status` shows it.
type NodeInfo struct {
	Name      string   `json:"name"`
	Addresses []string `json:"addresses"`
	PID       int      `json:"pid"`   // of the agent, 0: not running
	State     string   `json:"state"` // ok, warning, failure or down
	Nodes     uint32   `json:"knownNodes"`
	Pods      int      `json:"pods"`
	Revision  uint64   `json:"policyRevision"`
	StateDir  string   `json:"stateDir"`
	Log       string   `json:"log"`
}

// Report is the state of the whole demo.
type Report struct {
	Created  time.Time  `json:"created"`
	Dir      string     `json:"directory"`
	Nodes    []NodeInfo `json:"nodes"`
	Pods     []PodInfo  `json:"pods"`
	Problems []string   `json:"problems"` // none: all is well
}

// view reads the state without locking: a change in progress is seen before or after.
func (d *Demo) view() error {
	if err := needRoot(); err != nil {
		return err
	}
	st, err := d.load()
	if err != nil {
		return err
	}
	if st.BootID != bootID() {
		return errNone
	}
	d.state = st
	return nil
}

// Pods lists the pods with what the agents know of them.
func (d *Demo) Pods(ctx context.Context) ([]PodInfo, error) {
	if err := d.view(); err != nil {
		return nil, err
	}
	out, _ := d.podInfos(ctx)
	return out, nil
}

// podInfos also returns, by node, why an agent could not be asked.
func (d *Demo) podInfos(ctx context.Context) ([]PodInfo, map[string]error) {
	eps := map[string]*agentv1.Endpoint{}
	down := map[string]error{}
	for _, n := range nodes {
		r := client.Reader(paths.For(d.dir, n.name).AgentSocket())
		resp, err := r.ListEndpoints(ctx, connect.NewRequest(&agentv1.ListEndpointsRequest{}))
		if err != nil {
			down[n.name] = errors.New(client.Message(err))
			continue
		}
		for _, ep := range resp.Msg.GetEndpoints() {
			eps[ep.GetContainerId()] = ep
		}
	}
	out := []PodInfo{}
	for _, p := range d.pods() {
		name := d.nsName(p.Name)
		info := PodInfo{
			Name: p.Name, Namespace: p.Namespace, Node: p.Node, Addresses: p.Addrs, Labels: p.Labels, State: "missing",
			NetNS: netns.Path(name), Container: name,
		}
		if ns, err := d.open(p.Name); err == nil {
			info.Serving = runsIn(ns, p.Server)
		}
		if info.Addresses == nil {
			info.Addresses = []netip.Addr{}
		}
		if down[p.Node] != nil {
			info.State = "unknown"
		}
		if ep := eps[name]; ep != nil {
			info.Identity, info.Endpoint, info.State = ep.GetIdentity(), ep.GetId(), ep.GetState()
			if l := ep.GetLabels(); len(l) > 0 {
				info.Labels = l
			}
		}
		out = append(out, info)
	}
	return out, down
}

// Status looks at everything the demo consists of.
func (d *Demo) Status(ctx context.Context) (*Report, error) {
	if err := d.view(); err != nil {
		return nil, err
	}
	r := &Report{Created: d.state.Created, Dir: d.dir, Problems: []string{}}
	problem := func(format string, args ...any) { r.Problems = append(r.Problems, fmt.Sprintf(format, args...)) }
	var down map[string]error
	r.Pods, down = d.podInfos(ctx)
	for _, n := range nodes {
		info := NodeInfo{Name: n.name, Addresses: []string{n.ip4, n.ip6}, State: "down", StateDir: paths.For(d.dir, n.name).State, Log: d.logFile(n.name)}
		for _, p := range r.Pods {
			if p.Node == n.name {
				info.Pods++
			}
		}
		ns, err := d.open(n.name)
		switch {
		case err != nil:
			problem("the namespace of %s is gone", n.name)
		case !ns.HasLink("eth0"):
			problem("%s is not connected: its eth0 is gone", n.name)
		case runsIn(ns, d.state.Agents[n.name]):
			info.PID = d.state.Agents[n.name].PID
		}
		c := client.Reader(paths.For(d.dir, n.name).AgentSocket())
		switch st, err := c.Status(ctx, connect.NewRequest(&agentv1.StatusRequest{})); {
		case err != nil && info.PID == 0:
			problem("the agent of %s is not running; pods keep the connections and the policy they have", n.name)
		case err != nil:
			problem("the agent of %s does not answer: %s", n.name, client.Message(err))
		default:
			info.State = strings.ToLower(st.Msg.GetState().String())
			info.Nodes, info.Revision = st.Msg.GetNodes(), st.Msg.GetPolicyRevision()
			for _, comp := range st.Msg.GetComponents() {
				if s := comp.GetState(); s == agentv1.Component_FAILURE || s == agentv1.Component_WARNING {
					problem("%s: %s: %s", n.name, comp.GetName(), strings.TrimSpace(comp.GetMessage()+" "+comp.GetRemedy()))
				}
			}
		}
		r.Nodes = append(r.Nodes, info)
	}
	for _, p := range r.Pods {
		switch {
		case down[p.Node] != nil: // said above
		case p.Endpoint == 0:
			problem("pod %s is not attached", p.Name)
		case p.State != "ready":
			problem("pod %s is %s", p.Name, p.State)
		}
		if !p.Serving {
			problem("the servers of pod %s do not run (log: %s)", p.Name, d.logFile(p.Name))
		}
	}
	for _, p := range story {
		if !slices.ContainsFunc(r.Pods, func(q PodInfo) bool { return q.Name == p.Name }) {
			problem("pod %s of the story was deleted", p.Name)
		}
	}
	return r, nil
}
