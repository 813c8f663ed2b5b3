package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"connectrpc.com/connect"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/client"
	"github.com/hypha-net/hypha/internal/lab"
	"github.com/hypha-net/hypha/internal/netns"
)

// Pod is a workload of the cluster.
type Pod struct {
	Name  string
	Node  *Node
	NS    *netns.NS
	Addrs []netip.Addr

	att lab.Attachment
}

// PodSpec says what to add.
type PodSpec struct {
	Name      string
	Node      int // index
	Namespace string
	Labels    []string     // default id=<name>
	Addrs     []netip.Addr // wished; default: the agent chooses
	Idle      bool         // without the workload's servers
}

// Add makes a pod, attaches it and starts its servers. On error nothing is left.
func (c *Cluster) Add(ctx context.Context, s PodSpec) (*Pod, error) {
	p, err := c.Prepare(s)
	if err != nil {
		return nil, err
	}
	if err := c.Attach(ctx, p); err != nil {
		return nil, errors.Join(err, c.Delete(ctx, p))
	}
	if !s.Idle {
		if err := c.Serve(p); err != nil {
			return nil, errors.Join(err, c.Delete(ctx, p))
		}
	}
	return p, nil
}

// Prepare makes a pod's namespace only.
func (c *Cluster) Prepare(s PodSpec) (*Pod, error) {
	ns, err := netns.Temp("pod-" + s.Name)
	if err != nil {
		return nil, err
	}
	if s.Labels == nil {
		s.Labels = []string{"id=" + s.Name}
	}
	if s.Namespace == "" {
		s.Namespace = "default"
	}
	n := c.Nodes[s.Node]
	p := &Pod{Name: s.Name, Node: n, NS: ns, att: lab.Attachment{
		CNI: c.cfg.Bin.CNI, StateDir: c.Dir, Node: n.Name, ContainerID: ns.Name(), NetNS: ns.Path(),
		Pod: s.Name, Namespace: s.Namespace, Labels: s.Labels, Addrs: s.Addrs,
	}}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pods[s.Name] != nil {
		return nil, errors.Join(fmt.Errorf("there is a pod %s", s.Name), ns.Remove())
	}
	c.pods[s.Name] = p
	return p, nil
}

// Attach does the CNI ADD of a prepared pod.
func (c *Cluster) Attach(ctx context.Context, p *Pod) (err error) {
	p.Addrs, err = p.att.Add(ctx)
	return err
}

// Relabel replaces labels of the same keys ("key=value") and returns when all nodes know.
func (c *Cluster) Relabel(ctx context.Context, p *Pod, labels ...string) error {
	ep, err := p.endpoint(ctx)
	if err != nil {
		return err
	}
	if _, err := p.Node.Admin().UpdateEndpoint(ctx, connect.NewRequest(&agentv1.UpdateEndpointRequest{Id: ep.GetId(), AddLabels: labels})); err != nil {
		return fmt.Errorf("relabel pod %s: %s", p.Name, client.Message(err))
	}
	return c.WaitPod(ctx, p)
}

// WaitPod returns when the kernels of all nodes know who lives at the pod's addresses.
func (c *Cluster) WaitPod(ctx context.Context, p *Pod) error {
	for {
		err := c.knows(ctx, p)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for pod %s: %w", p.Name, err)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (c *Cluster) knows(ctx context.Context, p *Pod) error {
	ep, err := p.endpoint(ctx)
	if err != nil {
		return err
	}
	for _, n := range c.Nodes {
		rows, err := n.kernelAddrs(ctx)
		if err != nil {
			return err
		}
		for _, a := range p.Addrs {
			if got := rows[a.String()]; got != fmt.Sprint(ep.GetIdentity()) {
				return fmt.Errorf("%s takes %s for %q, not %d", n.Name, a, got, ep.GetIdentity())
			}
		}
	}
	return nil
}

// kernelAddrs are the identities of addresses as a node's kernel has them: its agent's tables are ahead of it.
func (n *Node) kernelAddrs(ctx context.Context) (map[string]string, error) {
	rows, err := n.Rows(ctx, "ipcache_exact_v1")
	out := make(map[string]string, len(rows))
	for _, r := range rows {
		out[r["PREFIX"]] = r["IDENTITY"]
	}
	return out, err
}

// endpoint is what the agent knows of the pod.
func (p *Pod) endpoint(ctx context.Context) (*agentv1.Endpoint, error) {
	eps, err := p.Node.Endpoints(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for pod %s: %s", p.Name, client.Message(err))
	}
	for _, ep := range eps {
		if ep.GetContainerId() == p.NS.Name() {
			return ep, nil
		}
	}
	return nil, fmt.Errorf("%s has no endpoint of pod %s", p.Node.Name, p.Name)
}

// Detach does the CNI DEL; the namespace stays.
func (c *Cluster) Detach(ctx context.Context, p *Pod) error { return p.att.Del(ctx) }

// Serve starts the workload's servers in the pod.
func (c *Cluster) Serve(p *Pod) error {
	_, err := lab.StartWorkload(lab.Workload{
		Hypha: c.cfg.Bin.Hypha, NS: p.NS, Name: p.Name, Node: p.Node.Name, Log: filepath.Join(c.Dir, "pod-"+p.Name+".log"),
	}, 10*time.Second)
	return err
}

// Delete detaches a pod and removes its namespace with what runs in it.
func (c *Cluster) Delete(ctx context.Context, p *Pod) error {
	err := p.att.Del(ctx)
	c.mu.Lock()
	delete(c.pods, p.Name)
	c.mu.Unlock()
	return errors.Join(err, p.NS.Remove())
}

// ServeOutside starts the workload's servers in the world.
func (c *Cluster) ServeOutside() error {
	_, err := lab.StartWorkload(lab.Workload{
		Hypha: c.cfg.Bin.Hypha, NS: c.World, Name: "world", Node: "outside", Log: filepath.Join(c.Dir, "world.log"),
	}, 10*time.Second)
	return err
}

// Addr is the pod's address of the wanted version, or the zero Addr.
func (p *Pod) Addr(v6 bool) netip.Addr {
	for _, a := range p.Addrs {
		if a.Is6() == v6 {
			return a
		}
	}
	return netip.Addr{}
}

// Pod is the pod of this name, nil when there is none.
func (c *Cluster) Pod(name string) *Pod {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pods[name]
}
