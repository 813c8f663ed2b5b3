package app

import (
	"context"
	"errors"
	"net/netip"

	"connectrpc.com/connect"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/control/prefilter"
	"github.com/hypha-net/hypha/internal/datapath/maps"
)

func (r reader) GetPrefilter(context.Context, *connect.Request[agentv1.GetPrefilterRequest]) (*connect.Response[agentv1.GetPrefilterResponse], error) {
	if err := r.prefilterOn(); err != nil {
		return nil, err
	}
	packets, bytes, err := r.maps.PrefilterDrops()
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	list, _ := r.denials.current()
	out := &agentv1.GetPrefilterResponse{Revision: list.Revision, Deny: texts(list.Deny), DroppedPackets: packets, DroppedBytes: bytes}
	names, modes := r.denials.modes(list)
	for i, name := range names {
		out.Devices = append(out.Devices, &agentv1.PrefilterDevice{Name: name, Mode: modes[i]})
	}
	return connect.NewResponse(out), nil
}

func (a admin) UpdatePrefilter(_ context.Context, req *connect.Request[agentv1.UpdatePrefilterRequest]) (*connect.Response[agentv1.UpdatePrefilterResponse], error) {
	revision, n, err := a.changePrefilter(req.Msg.GetCidrs(), func(l prefilter.List, ps []netip.Prefix) (prefilter.List, int, error) {
		next, n, err := l.Add(req.Msg.GetRevision(), ps)
		if err == nil {
			if err := prefilter.Spare(ps, a.nodeAddrs()); err != nil {
				return l, 0, connect.NewError(connect.CodeInvalidArgument, err)
			}
		}
		return next, n, err
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&agentv1.UpdatePrefilterResponse{Revision: revision, Count: uint32(n)}), nil
}

func (a admin) DeletePrefilter(_ context.Context, req *connect.Request[agentv1.DeletePrefilterRequest]) (*connect.Response[agentv1.DeletePrefilterResponse], error) {
	revision, n, err := a.changePrefilter(req.Msg.GetCidrs(), func(l prefilter.List, ps []netip.Prefix) (prefilter.List, int, error) {
		return l.Remove(req.Msg.GetRevision(), ps)
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&agentv1.DeletePrefilterResponse{Revision: revision, Count: uint32(n)}), nil
}

// changePrefilter reads CIDRs and takes a step with them. Errors have the API's codes.
func (a *Agent) changePrefilter(cidrs []string, step func(prefilter.List, []netip.Prefix) (prefilter.List, int, error)) (revision uint64, changed int, err error) {
	if err := a.prefilterOn(); err != nil {
		return 0, 0, err
	}
	ps, err := prefilter.Parse(cidrs)
	if err == nil && len(ps) == 0 {
		err = errors.New("give at least one CIDR")
	}
	if err != nil {
		return 0, 0, connect.NewError(connect.CodeInvalidArgument, err)
	}
	revision, changed, err = a.denials.change(func(l prefilter.List) (prefilter.List, int, error) { return step(l, ps) })
	switch {
	case err == nil:
		return revision, changed, nil
	case errors.Is(err, prefilter.ErrStale):
		err = connect.NewError(connect.CodeAborted, err)
	case errors.Is(err, prefilter.ErrAbsent):
		err = connect.NewError(connect.CodeNotFound, err)
	case errors.Is(err, maps.ErrFull) && !errors.Is(err, errNotYet):
		err = connect.NewError(connect.CodeResourceExhausted, err)
	case connect.CodeOf(err) == connect.CodeUnknown:
		err = connect.NewError(connect.CodeInternal, err)
	}
	return 0, 0, err
}

func (a *Agent) prefilterOn() error {
	if a.cfg.Prefilter {
		return nil
	}
	return fail(connect.CodeFailedPrecondition, "the prefilter is off: set enable-xdp-prefilter and restart the agent")
}
