package server

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	flowpb "github.com/hypha-net/hypha/api/flow"
	observerpb "github.com/hypha-net/hypha/api/observer"
	"github.com/hypha-net/hypha/internal/observe"
	"github.com/hypha-net/hypha/internal/observe/filter"
)

// flows is observer.Observer.
type flows struct{ *Server }

func invalid(err error) error { return connect.NewError(connect.CodeInvalidArgument, err) }

// GetFlows streams flows.
func (s *flows) GetFlows(ctx context.Context, req *connect.Request[observerpb.GetFlowsRequest], out *connect.ServerStream[observerpb.GetFlowsResponse]) error {
	q, err := newQuery(req.Msg)
	if err != nil {
		return invalid(err)
	}
	want, err := filter.Compile(req.Msg.GetWhitelist(), req.Msg.GetBlacklist())
	if err != nil {
		return invalid(err)
	}
	paths := req.Msg.GetFieldMask().GetPaths()
	if len(paths) == 0 {
		paths = req.Msg.GetExperimental().GetFieldMask().GetPaths()
	}
	mask, err := newMask(paths)
	if err != nil {
		return invalid(err)
	}
	node := s.obs.NodeName()
	var gap time.Time // since when this reader has been late
	w := walk[observe.Record]{
		ring: s.obs.Flows(),
		now:  s.obs.Now,
		open: func() error { return out.Send(nil) }, // the headers
		time: func(r observe.Record) time.Time { return r.Time },
		use: func(r observe.Record) use {
			switch {
			case r.Lost != nil:
				return tell
			case want.Match(r.Flow()):
				return hit
			}
			return skip
		},
		send: func(r observe.Record) error {
			gap = r.Time
			res := &observerpb.GetFlowsResponse{NodeName: node, Time: timestamppb.New(r.Time)}
			if r.Lost != nil {
				res.ResponseTypes = &observerpb.GetFlowsResponse_LostEvents{LostEvents: r.Lost}
			} else {
				f := r.Flow()
				res.Time = f.GetTime()
				res.ResponseTypes = &observerpb.GetFlowsResponse_Flow{Flow: mask.apply(f)}
			}
			return out.Send(res)
		},
		lost: func(n uint64) error {
			s.obs.NoteReaderLoss(n)
			now := s.obs.Now()
			l := &flowpb.LostEvent{Source: flowpb.LostEventSource_HUBBLE_RING_BUFFER, NumEventsLost: n, Last: timestamppb.New(now)}
			if !gap.IsZero() {
				l.First = timestamppb.New(gap)
			}
			return out.Send(&observerpb.GetFlowsResponse{NodeName: node, Time: timestamppb.New(now),
				ResponseTypes: &observerpb.GetFlowsResponse_LostEvents{LostEvents: l}})
		},
	}
	return w.run(ctx, q)
}

// GetAgentEvents streams what the agent did.
func (s *flows) GetAgentEvents(ctx context.Context, req *connect.Request[observerpb.GetAgentEventsRequest], out *connect.ServerStream[observerpb.GetAgentEventsResponse]) error {
	q, err := newQuery(req.Msg)
	if err != nil {
		return invalid(err)
	}
	return events(ctx, s.Server, s.obs.Agent.Log, q, func() error { return out.Send(nil) }, func(e observe.Entry[*flowpb.AgentEvent]) error {
		return out.Send(&observerpb.GetAgentEventsResponse{AgentEvent: e.Event, NodeName: s.obs.NodeName(), Time: timestamppb.New(e.Time)})
	})
}

// GetDebugEvents streams what the datapath said for debugging.
func (s *flows) GetDebugEvents(ctx context.Context, req *connect.Request[observerpb.GetDebugEventsRequest], out *connect.ServerStream[observerpb.GetDebugEventsResponse]) error {
	q, err := newQuery(req.Msg)
	if err != nil {
		return invalid(err)
	}
	return events(ctx, s.Server, s.obs.Debug, q, func() error { return out.Send(nil) }, func(e observe.Entry[*flowpb.DebugEvent]) error {
		return out.Send(&observerpb.GetDebugEventsResponse{DebugEvent: e.Event, NodeName: s.obs.NodeName(), Time: timestamppb.New(e.Time)})
	})
}

// events walks a log. Its messages have no place for losses, so those are only counted.
func events[E any](ctx context.Context, s *Server, l *observe.Log[E], q query, open func() error, send func(observe.Entry[E]) error) error {
	return walk[observe.Entry[E]]{
		ring: l.Ring(),
		now:  s.obs.Now,
		open: open,
		time: func(e observe.Entry[E]) time.Time { return e.Time },
		use:  func(observe.Entry[E]) use { return hit },
		send: send,
		lost: func(n uint64) error { s.obs.NoteReaderLoss(n); return nil },
	}.run(ctx, q)
}
