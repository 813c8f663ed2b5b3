package cli

import (
	"context"
	"encoding/json"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/api/agent/v1/agentv1connect"
	"github.com/hypha-net/hypha/internal/cli/out"
)

// method is one call of the Reader API, as a method expression of its client.
type method[Q, A any] func(agentv1connect.ReaderClient, context.Context, *connect.Request[Q]) (*connect.Response[A], error)

// answer makes a section out of a call.
func answer[Q, A any](e *env, m method[Q, A]) func(context.Context) (any, error) {
	return func(ctx context.Context) (any, error) {
		r, err := e.reader()
		if err != nil {
			return nil, err
		}
		resp, err := m(r, ctx, connect.NewRequest(new(Q)))
		if err != nil {
			return nil, err
		}
		switch m := any(resp.Msg).(type) {
		case *agentv1.GetConfigResponse:
			redact(m.GetOptions())
			return out.List(m.GetOptions()), nil
		case *agentv1.GetPolicyResponse:
			return out.Object{{Key: "revision", Value: m.GetRevision()}, {Key: "rules", Value: json.RawMessage(or(m.GetJson(), "[]"))}}, nil
		case proto.Message:
			return out.Proto{M: m}, nil
		}
		return nil, nil // all answers are messages
	}
}

func (e *env) sections(limit int) []section {
	type api = agentv1connect.ReaderClient
	return []section{
		{"Program", "client", programFacts},
		{"Kernel", "kernel", kernelFacts},
		{"Doctor", "doctor", e.machineFacts},
		{"Status", "status", answer(e, api.Status)},
		{"Options", "config", answer(e, api.GetConfig)},
		{"Endpoints", "endpoints", answer(e, api.ListEndpoints)},
		{"Identities", "identities", answer(e, api.ListIdentities)},
		{"Nodes", "nodes", answer(e, api.ListNodes)},
		{"Policy", "policy", answer(e, api.GetPolicy)},
		{"Selectors", "selectors", answer(e, api.ListSelectors)},
		{"Metrics", "metrics", answer(e, api.ListMetrics)},
		{"Maps", "maps", answer(e, api.ListMaps)},
		{"Rows of the maps", "mapRows", func(ctx context.Context) (any, error) { return e.allRows(ctx, limit) }},
	}
}

// allRows dumps every map.
func (e *env) allRows(ctx context.Context, limit int) (any, error) {
	r, err := e.reader()
	if err != nil {
		return nil, err
	}
	resp, err := r.ListMaps(ctx, req(&agentv1.ListMapsRequest{}))
	if err != nil {
		return nil, err
	}
	all := out.Object{}
	for _, m := range resp.Msg.GetMaps() {
		rs, err := e.dump(ctx, m.GetName(), limit, nil)
		if err != nil {
			all = append(all, out.Field{Key: m.GetName(), Value: out.Object{{Key: "error", Value: message(err)}}})
			continue
		}
		all = append(all, out.Field{Key: m.GetName(), Value: rs.json()})
	}
	return all, nil
}
