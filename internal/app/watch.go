package app

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"connectrpc.com/connect"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/monitor"
)

// Monitor streams the datapath's events until the client goes.
func (r reader) Monitor(ctx context.Context, req *connect.Request[agentv1.MonitorRequest], stream *connect.ServerStream[agentv1.MonitorEvent]) error {
	match, err := monitor.Match(req.Msg.GetTypes(), req.Msg.GetRelatedTo(), req.Msg.GetFrom(), req.Msg.GetTo())
	if err != nil {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	l := r.hub.Listen(match)
	defer l.Close()
	if err := stream.Send(nil); err != nil { // headers now, so that a client knows that it listens
		return err
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if n := l.TakeLost(); n > 0 {
				if err := stream.Send(&agentv1.MonitorEvent{Time: timestamppb.Now(), Type: "lost", Lost: n, Summary: fmt.Sprintf("%d events lost", n)}); err != nil {
					return err
				}
			}
		case ev := <-l.Events():
			m := &agentv1.MonitorEvent{Time: timestamppb.New(ev.Time), Type: monitor.TypeName(&ev), Cpu: uint32(ev.CPU),
				Summary: monitor.Summary(&ev, r.names.Interface)}
			for _, f := range monitor.Fields(&ev, r.names.Interface) {
				m.Fields = append(m.Fields, &agentv1.Column{Name: f.Name, Value: f.Value})
			}
			if err := stream.Send(m); err != nil {
				return err
			}
		}
	}
}

// ListMetrics reads the registry behind /metrics.
func (r reader) ListMetrics(_ context.Context, req *connect.Request[agentv1.ListMetricsRequest]) (*connect.Response[agentv1.ListMetricsResponse], error) {
	pattern, err := regexp.Compile(req.Msg.GetPattern())
	if err != nil {
		return nil, fail(connect.CodeInvalidArgument, "pattern %q: %w", req.Msg.GetPattern(), err)
	}
	families, err := r.registry.Gather()
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	out := &agentv1.ListMetricsResponse{}
	for _, f := range families {
		if !pattern.MatchString(f.GetName()) {
			continue
		}
		for _, m := range f.GetMetric() {
			out.Metrics = append(out.Metrics, metricMessage(f, m))
		}
	}
	return connect.NewResponse(out), nil
}

func metricMessage(f *dto.MetricFamily, m *dto.Metric) *agentv1.Metric {
	out := &agentv1.Metric{Name: f.GetName(), Labels: map[string]string{}}
	for _, l := range m.GetLabel() {
		out.Labels[l.GetName()] = l.GetValue()
	}
	switch f.GetType() {
	case dto.MetricType_COUNTER:
		out.Type, out.Value = "counter", m.GetCounter().GetValue()
	case dto.MetricType_HISTOGRAM:
		out.Type, out.Value, out.Count = "histogram", m.GetHistogram().GetSampleSum(), m.GetHistogram().GetSampleCount()
	case dto.MetricType_SUMMARY:
		out.Type, out.Value, out.Count = "summary", m.GetSummary().GetSampleSum(), m.GetSummary().GetSampleCount()
	default:
		out.Type, out.Value = "gauge", m.GetGauge().GetValue()
	}
	return out
}
