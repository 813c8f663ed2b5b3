package app

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
)

// healthHandler answers a supervisor's probes. /healthz: 200 while no part has failed, else 503 and which. /livez: 200 while
// the agent answers at all, since ending an agent mends nothing that it waits for.
func healthHandler(status func(context.Context) *agentv1.StatusResponse) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		s := status(r.Context())
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if s.GetState() != stateFailure {
			_, _ = w.Write([]byte("ok\n"))
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		for _, c := range s.GetComponents() {
			if c.GetState() == stateFailure {
				_, _ = w.Write([]byte(c.GetName() + ": " + c.GetMessage() + "\n"))
			}
		}
	})
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, r *http.Request) {
		status(r.Context())
		_, _ = w.Write([]byte("ok\n"))
	})
	return mux
}

// listenHealth serves them on the node's loopback, and where load balancers ask.
func (a *Agent) listenHealth(run func(string, func(context.Context) error)) error {
	at := map[string]string{"kube-proxy-replacement-healthz-bind-address": a.cfg.HealthzBind}
	if a.cfg.HealthPort != 0 {
		at["agent-health-port"] = net.JoinHostPort("127.0.0.1", strconv.Itoa(int(a.cfg.HealthPort)))
	}
	for option, addr := range at {
		if addr == "" {
			continue
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return fmt.Errorf("option %s: %w", option, err)
		}
		run("health", func(ctx context.Context) error { return serveHTTP(ctx, l, healthHandler(a.status)) })
	}
	return nil
}
