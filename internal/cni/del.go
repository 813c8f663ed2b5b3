package cni

import (
	"connectrpc.com/connect"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
)

func (p *plugin) del(args *skel.CmdArgs) (err error) {
	_, a, end, err := begin("DEL", args)
	if err != nil {
		return err
	}
	defer func() { end(err) }()
	return a.delete(args)
}

// delete detaches the workload, or leaves a note when the agent cannot be asked: a runtime cannot do anything about that.
func (a *agent) delete(args *skel.CmdArgs) error {
	ctx, cancel := timeout()
	defer cancel()
	_, err := a.admin().DeleteEndpoint(ctx, connect.NewRequest(&agentv1.DeleteEndpointRequest{ContainerId: args.ContainerID, Interface: args.IfName}))
	if err == nil {
		return nil
	}
	if !unreachable(err) {
		return fail("detach workload", err, types.ErrInvalidEnvironmentVariables)
	}
	if nerr := a.note(args); nerr != nil {
		return types.NewError(types.ErrTryAgainLater, fail("detach workload", err, 0).Msg, nerr.Error())
	}
	a.log.Info("agent not reached, left a note", "error", err)
	return nil
}

func (p *plugin) gc(args *skel.CmdArgs) (err error) {
	c, a, end, err := begin("GC", args)
	if err != nil {
		return err
	}
	defer func() { end(err) }()
	req := &agentv1.SweepEndpointsRequest{Network: c.Name}
	for _, v := range c.ValidAttachments {
		req.Valid = append(req.Valid, &agentv1.Attachment{ContainerId: v.ContainerID, Interface: v.IfName})
	}
	ctx, cancel := timeout()
	defer cancel()
	if _, err := a.admin().SweepEndpoints(ctx, connect.NewRequest(req)); err != nil {
		return fail("detach stale workloads", err, types.ErrInvalidNetworkConfig)
	}
	return nil
}
