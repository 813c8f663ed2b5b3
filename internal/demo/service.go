package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/client"
	"github.com/hypha-net/hypha/internal/paths"
	"github.com/hypha-net/hypha/internal/workload"
)

// The story's service: app1 under an address that no machine has.
const (
	serviceName = "web"
	serviceID   = 1
	serviceIP   = "10.96.0.10"
)

// service puts app1 behind its service, and waits until all nodes serve it.
func (d *Demo) service(ctx context.Context) error {
	app1, ok := d.find("app1")
	if !ok || len(app1.Addrs) == 0 {
		return errors.New("pod app1 is missing: `hypha demo up` again")
	}
	to := app1.Addrs[0].String()
	first := paths.For(d.dir, nodes[0].name)
	want := &agentv1.Service{Id: serviceID, Namespace: app1.Namespace, Name: serviceName, Type: "ClusterIP",
		Frontend: &agentv1.Frontend{Ip: serviceIP, Port: workload.HTTPPort, Protocol: "TCP"},
		Backends: []*agentv1.Backend{{Ip: to, Port: workload.HTTPPort, Protocol: "TCP", Node: app1.Node}}}
	if _, err := client.Admin(first.AdminSocket()).UpdateService(ctx, connect.NewRequest(&agentv1.UpdateServiceRequest{Service: want})); err != nil {
		return fmt.Errorf("make the service: %s", client.Message(err))
	}
	return each(ctx, nodes, func(ctx context.Context, n node) error {
		r := client.Reader(paths.For(d.dir, n.name).AgentSocket())
		for {
			got, err := r.GetService(ctx, connect.NewRequest(&agentv1.GetServiceRequest{Id: serviceID}))
			if err == nil {
				if b := got.Msg.GetService().GetBackends(); len(b) == 1 && b[0].GetIp() == to {
					return nil
				}
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("wait for the service on %s: %w", n.name, context.Cause(ctx))
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
}
