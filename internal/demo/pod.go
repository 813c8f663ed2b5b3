package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/client"
	"github.com/hypha-net/hypha/internal/lab"
	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/paths"
	"github.com/hypha-net/hypha/internal/process"
)

// AddPod makes a pod on a node, attaches it and starts its servers. Ports are those that policies may name, such as http:80/tcp. The
// demo must be up.
func (d *Demo) AddPod(ctx context.Context, name, namespace, node string, labels []string, ports ...string) error {
	p := pod{Name: name, Namespace: namespace, Node: node, Labels: labels, Ports: ports}
	if err := p.check(); err != nil {
		return err
	}
	unlock, err := d.begin()
	if err != nil {
		return err
	}
	defer unlock()
	if _, ok := d.find(name); ok {
		return fmt.Errorf("there is a pod %s already: `hypha demo pod delete %s` removes it", name, name)
	}
	if err := d.attach(ctx, p); err != nil {
		return errors.Join(err, d.detach(context.WithoutCancel(ctx), p), d.dropPod(name))
	}
	if err := d.writeHosts(); err != nil {
		return err
	}
	p, _ = d.find(name)
	d.say("pod %s is on %s: %s, labels %s", p.Name, p.Node, joinAddrs(p.Addrs), strings.Join(p.Labels, ","))
	return nil
}

// DeletePod detaches a pod, ends what runs in it and removes its namespace.
func (d *Demo) DeletePod(ctx context.Context, name string) error {
	unlock, err := d.begin()
	if err != nil {
		return err
	}
	defer unlock()
	p, ok := d.find(name)
	if !ok {
		return d.noPod(name)
	}
	if err := d.detach(ctx, p); err != nil {
		return err
	}
	if err := errors.Join(d.dropPod(name), d.writeHosts()); err != nil {
		return err
	}
	d.say("pod %s is gone", name)
	return nil
}

// begin checks that there is a demo of this boot, locks it and reads its state.
func (d *Demo) begin() (unlock func(), err error) {
	if err := d.refuse(); err != nil {
		return nil, err
	}
	if unlock, err = d.lock(false); err != nil {
		return nil, err
	}
	if d.state, err = d.load(); err == nil && d.state.BootID != bootID() {
		err = errNone
	}
	if err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

// ensurePod attaches a pod unless it is there and whole.
func (d *Demo) ensurePod(ctx context.Context, p pod) error {
	if ns, err := d.open(p.Name); err == nil && ns.HasLink("eth0") && runsIn(ns, p.Server) {
		ready, err := d.attached(ctx, p)
		if err != nil {
			return err
		}
		if ready {
			return nil
		}
	}
	if err := d.detach(ctx, p); err != nil {
		return err
	}
	return d.attach(ctx, p)
}

// attached asks the node's agent whether it has the pod.
func (d *Demo) attached(ctx context.Context, p pod) (bool, error) {
	r := client.Reader(paths.For(d.dir, p.Node).AgentSocket())
	resp, err := r.ListEndpoints(ctx, connect.NewRequest(&agentv1.ListEndpointsRequest{}))
	if err != nil {
		return false, fmt.Errorf("ask the agent of %s for its pods: %s", p.Node, client.Message(err))
	}
	for _, ep := range resp.Msg.GetEndpoints() {
		if ep.GetContainerId() == d.nsName(p.Name) {
			return ep.GetState() == "ready", nil
		}
	}
	return false, nil
}

// attach makes the pod's namespace, attaches it and starts its servers. The pod is in the state from the first moment,
// so that whatever goes wrong later, it is known to be there.
func (d *Demo) attach(ctx context.Context, p pod) error {
	p.Addrs, p.Server = nil, process.ID{}
	if err := d.setPod(p); err != nil {
		return err
	}
	ns, err := d.ensure(p.Name)
	if err != nil {
		return err
	}
	if p.Addrs, err = d.attachment(p).Add(ctx); err != nil {
		return err
	}
	srv, err := lab.StartWorkload(lab.Workload{Hypha: d.bin.Hypha, NS: ns, Name: p.Name, Node: p.Node, Log: d.logFile(p.Name)}, 5*time.Second)
	if err != nil {
		return err
	}
	p.Server = srv.ID
	return d.setPod(p)
}

// detach undoes attach, as far as it came.
func (d *Demo) detach(ctx context.Context, p pod) error {
	if now, ok := d.find(p.Name); ok {
		p = now
	}
	if err := p.Server.Stop(time.Second); err != nil {
		return err
	}
	if err := d.attachment(p).Del(ctx); err != nil {
		return err
	}
	ns, err := d.open(p.Name)
	if err == nil {
		if err := d.endProcesses(ns, "pod "+p.Name); err != nil {
			return err
		}
	}
	return netns.Delete(d.nsName(p.Name))
}

func (d *Demo) attachment(p pod) lab.Attachment {
	name := d.nsName(p.Name)
	return lab.Attachment{
		CNI: d.bin.CNI, StateDir: d.dir, Node: p.Node, ContainerID: name, NetNS: netns.Path(name),
		Pod: p.Name, Namespace: p.Namespace, Labels: p.Labels, Ports: p.Ports,
	}
}

func (d *Demo) noPod(name string) error {
	var names []string
	for _, p := range d.pods() {
		names = append(names, p.Name)
	}
	if len(names) == 0 {
		return &UsageError{fmt.Sprintf("there is no pod %s, nor any other", name)}
	}
	return &UsageError{fmt.Sprintf("there is no pod %s: the demo has %s", name, strings.Join(names, ", "))}
}
