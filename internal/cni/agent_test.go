package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/api/agent/v1/agentv1connect"
	"github.com/hypha-net/hypha/internal/endpoint"
	"github.com/hypha-net/hypha/internal/endpoint/fake"
	"github.com/hypha-net/hypha/internal/paths"
)

// The plugin and the reference runtime, built once.
var bin = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "hypha-cni-test-")
	if err != nil {
		return "", err
	}
	built = dir
	for _, pkg := range []string{"github.com/hypha-net/hypha/cmd/hypha-cni", "github.com/containernetworking/cni/cnitool"} {
		if out, err := exec.Command("go", "build", "-o", dir+"/", pkg).CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w: %s", pkg, err, out)
		}
	}
	return dir, nil
})

var built string

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		_ = os.RemoveAll(built)
	}
	os.Exit(code)
}

// rig is a node with a fake kernel, a real endpoint manager behind real sockets, and the plugin.
type rig struct {
	t     *testing.T
	bin   string
	dir   string // state directory
	paths paths.Paths
	world *fake.World
	m     *endpoint.Manager
	api   *api
	stop  func()
}

func newRig(t *testing.T) *rig {
	t.Helper()
	if testing.Short() {
		t.Skip("builds and starts binaries")
	}
	b, err := bin()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "hc") // short: it holds a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	r := &rig{t: t, bin: b, dir: dir, paths: paths.For(dir, "n1")}
	r.world = fake.New(endpoint.Files(r.paths.Endpoints()))
	t.Cleanup(func() {
		if r.stop != nil {
			r.stop()
		}
		for _, v := range r.world.Violations {
			t.Error(v)
		}
	})
	return r
}

// start is the start of an agent.
func (r *rig) start() {
	r.t.Helper()
	r.world.Restart()
	m, err := endpoint.New(endpoint.Config{Paths: r.paths, MTU: 1450, Gateway4: netip.MustParseAddr("10.1.0.1"),
		Gateway6: netip.MustParseAddr("fd00::1")}, r.world.Deps())
	if err != nil {
		r.t.Fatal(err)
	}
	if err := m.Restore(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = m.Run(ctx) }()
	r.m, r.api = m, &api{server: &endpoint.Server{Manager: m}}
	mux := http.NewServeMux()
	mux.Handle(agentv1connect.NewAdminHandler(r.api))
	mux.Handle(agentv1connect.NewReaderHandler(reader{api: r.api}))
	shut := r.listen(mux)
	r.stop = func() { shut(); cancel(); <-done; r.stop = nil }
}

func (r *rig) listen(h http.Handler) (shut func()) {
	r.t.Helper()
	if err := os.MkdirAll(r.paths.State, 0o700); err != nil {
		r.t.Fatal(err)
	}
	_ = os.Remove(r.paths.AdminSocket())
	l, err := net.Listen("unix", r.paths.AdminSocket())
	if err != nil {
		r.t.Fatal(err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Second}
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(l) }()
	return func() {
		_ = srv.Close()
		<-served // it closes the listener, and with it removes the socket, however late it began
	}
}

// netns is a path that serves as a network namespace: the fake kernel does not enter it.
func (r *rig) netns(name string) string {
	path := filepath.Join(r.dir, "netns-"+name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// conf is a network configuration with these changes.
func (r *rig) conf(version string, more map[string]any) string {
	c := map[string]any{"cniVersion": version, "name": "hypha-test-" + filepath.Base(r.dir), "type": "hypha-cni",
		"stateDir": r.dir, "nodeName": "n1", "logFile": filepath.Join(r.dir, "cni.log"), "capabilities": map[string]bool{"portMappings": true}}
	for k, v := range more {
		if v == nil {
			delete(c, k)
		} else {
			c[k] = v
		}
	}
	data, err := json.Marshal(c)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(data)
}

// answer is what a call of the plugin printed: a result or an error.
type answer struct {
	exit       int
	raw        string
	CNIVersion string           `json:"cniVersion"`
	Interfaces []map[string]any `json:"interfaces"`
	IPs        []map[string]any `json:"ips"`
	Routes     []map[string]any `json:"routes"`
	Code       int              `json:"code"`
	Msg        string           `json:"msg"`
	Details    string           `json:"details"`
}

// call runs the plugin as a runtime does.
func (r *rig) call(command, container, stdin string, env ...string) answer {
	r.t.Helper()
	cmd := exec.Command(filepath.Join(r.bin, "hypha-cni"))
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "CNI_COMMAND=" + command, "CNI_CONTAINERID=" + container,
		"CNI_IFNAME=eth0", "CNI_PATH=" + r.bin}, env...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.Output()
	a := answer{raw: string(out)}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		a.exit = exit.ExitCode()
	} else if err != nil {
		r.t.Fatal(err)
	}
	if len(out) > 0 {
		if err := json.Unmarshal(out, &a); err != nil {
			r.t.Fatalf("%s: %v: %s", command, err, out)
		}
	}
	if (a.exit != 0) != (a.Code != 0) {
		r.t.Errorf("%s: exit code %d with %s", command, a.exit, out)
	}
	return a
}

// api serves the calls of the plugin.
type api struct {
	agentv1connect.UnimplementedAdminHandler
	server *endpoint.Server
	state  agentv1.Component_State
}

func answerOf[M any](m *M, err error) (*connect.Response[M], error) {
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(m), nil
}

func (a *api) AddEndpoint(ctx context.Context, r *connect.Request[agentv1.AddEndpointRequest]) (*connect.Response[agentv1.AddEndpointResponse], error) {
	return answerOf(a.server.AddEndpoint(ctx, r.Msg))
}

func (a *api) DeleteEndpoint(ctx context.Context, r *connect.Request[agentv1.DeleteEndpointRequest]) (*connect.Response[agentv1.DeleteEndpointResponse], error) {
	return answerOf(a.server.DeleteEndpoint(ctx, r.Msg))
}

func (a *api) CheckEndpoint(ctx context.Context, r *connect.Request[agentv1.CheckEndpointRequest]) (*connect.Response[agentv1.CheckEndpointResponse], error) {
	return answerOf(a.server.CheckEndpoint(ctx, r.Msg))
}

func (a *api) SweepEndpoints(ctx context.Context, r *connect.Request[agentv1.SweepEndpointsRequest]) (*connect.Response[agentv1.SweepEndpointsResponse], error) {
	return answerOf(a.server.SweepEndpoints(ctx, r.Msg))
}

type reader struct {
	agentv1connect.UnimplementedReaderHandler
	api *api
}

func (r reader) Status(context.Context, *connect.Request[agentv1.StatusRequest]) (*connect.Response[agentv1.StatusResponse], error) {
	return connect.NewResponse(&agentv1.StatusResponse{State: r.api.state,
		Components: []*agentv1.Component{{Name: "etcd", State: r.api.state, Message: "gone"}}}), nil
}
