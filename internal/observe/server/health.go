package server

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"connectrpc.com/connect"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/hypha-net/hypha/api/observer/observerpbconnect"
	"github.com/hypha-net/hypha/api/peer/peerpbconnect"
)

const healthService = "/grpc.health.v1.Health/"

// healthNames are the services that may be asked for; the field's clients ask for the third.
var healthNames = []string{"", observerpbconnect.ObserverName, "hubble.server.Observer", peerpbconnect.PeerName}

// registerHealth serves gRPC's health protocol. Whoever can ask is served: there is no state between "listening"
// and "gone".
func registerHealth(mux *http.ServeMux, opt connect.HandlerOption) {
	check := func(service string) (*healthpb.HealthCheckResponse, bool) {
		if slices.Contains(healthNames, service) {
			return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, true
		}
		return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVICE_UNKNOWN}, false
	}
	mux.Handle(healthService+"Check", connect.NewUnaryHandler(healthService+"Check",
		func(_ context.Context, req *connect.Request[healthpb.HealthCheckRequest]) (*connect.Response[healthpb.HealthCheckResponse], error) {
			res, ok := check(req.Msg.GetService())
			if !ok {
				return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("no service %q here", req.Msg.GetService()))
			}
			return connect.NewResponse(res), nil
		}, opt))
	mux.Handle(healthService+"List", connect.NewUnaryHandler(healthService+"List",
		func(context.Context, *connect.Request[healthpb.HealthListRequest]) (*connect.Response[healthpb.HealthListResponse], error) {
			res := &healthpb.HealthListResponse{Statuses: map[string]*healthpb.HealthCheckResponse{}}
			for _, n := range healthNames {
				res.Statuses[n], _ = check(n)
			}
			return connect.NewResponse(res), nil
		}, opt))
	mux.Handle(healthService+"Watch", connect.NewServerStreamHandler(healthService+"Watch",
		func(ctx context.Context, req *connect.Request[healthpb.HealthCheckRequest], out *connect.ServerStream[healthpb.HealthCheckResponse]) error {
			res, _ := check(req.Msg.GetService())
			if err := out.Send(res); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		}, opt))
}
