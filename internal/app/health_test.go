package app

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
)

func TestHealth(t *testing.T) {
	for _, tc := range []struct {
		state agentv1.Component_State
		path  string
		code  int
		body  string
	}{
		{stateOK, "/healthz", 200, "ok\n"},
		{stateWarning, "/healthz", 200, "ok\n"},
		{stateFailure, "/healthz", 503, "kvstore: not reached\n"},
		{stateFailure, "/livez", 200, "ok\n"},
		{stateOK, "/", 404, "404 page not found\n"},
	} {
		h := healthHandler(func(context.Context) *agentv1.StatusResponse {
			return &agentv1.StatusResponse{State: tc.state, Components: []*agentv1.Component{
				{Name: "kvstore", State: tc.state, Message: "not reached"}, {Name: "policy", State: stateOK, Message: "fine"},
			}}
		})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, tc.path, nil))
		if w.Code != tc.code || w.Body.String() != tc.body {
			t.Errorf("%s while %s: %d %q", tc.path, tc.state, w.Code, w.Body)
		}
	}
}
