package client

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/api/agent/v1/agentv1connect"
	"github.com/hypha-net/hypha/internal/paths"
)

// fakeAgent answers what the tests ask; everything else is Unimplemented.
type fakeAgent struct {
	agentv1connect.UnimplementedReaderHandler
	hang chan struct{}
}

func (f *fakeAgent) Status(_ context.Context, _ *connect.Request[agentv1.StatusRequest]) (*connect.Response[agentv1.StatusResponse], error) {
	if f.hang != nil {
		<-f.hang
	}
	return connect.NewResponse(&agentv1.StatusResponse{NodeName: "n1"}), nil
}

func (f *fakeAgent) ListEndpoints(context.Context, *connect.Request[agentv1.ListEndpointsRequest]) (*connect.Response[agentv1.ListEndpointsResponse], error) {
	return nil, connect.NewError(connect.CodeNotFound, errors.New("endpoint 7 not found"))
}

func (f *fakeAgent) DumpMap(_ context.Context, req *connect.Request[agentv1.DumpMapRequest], s *connect.ServerStream[agentv1.MapRow]) error {
	for range 1000 {
		if err := s.Send(&agentv1.MapRow{Columns: []*agentv1.Column{{Name: "a", Value: req.Msg.GetName()}}}); err != nil {
			return err
		}
	}
	return nil
}

// serve listens at a socket until the test ends.
func serve(t *testing.T, socket string, h http.Handler) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Second}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
}

func reader(f *fakeAgent) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(agentv1connect.NewReaderHandler(f))
	return mux
}

// stateDir is a directory with a name short enough for sockets.
func stateDir(t *testing.T) string {
	t.Helper()
	d, err := os.MkdirTemp("", "hc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(d) })
	return d
}

func TestCalls(t *testing.T) {
	d := stateDir(t)
	socket := filepath.Join(d, "n1", "agent.sock")
	serve(t, socket, reader(&fakeAgent{}))
	c := Reader(socket)
	st, err := c.Status(t.Context(), connect.NewRequest(&agentv1.StatusRequest{}))
	if err != nil || st.Msg.GetNodeName() != "n1" {
		t.Fatalf("Status: %v, %v", st, err)
	}
	_, err = c.ListEndpoints(t.Context(), connect.NewRequest(&agentv1.ListEndpointsRequest{}))
	if connect.CodeOf(err) != connect.CodeNotFound || Message(err) != "endpoint 7 not found" || Down(err) {
		t.Fatalf("ListEndpoints: %v", err)
	}
	s, err := c.DumpMap(t.Context(), connect.NewRequest(&agentv1.DumpMapRequest{Name: "x"}))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for s.Receive() {
		if s.Msg().GetColumns()[0].GetValue() != "x" {
			t.Fatal(s.Msg())
		}
		n++
	}
	if s.Err() != nil || n != 1000 {
		t.Fatalf("DumpMap: %d rows, %v", n, s.Err())
	}
	_, err = Admin(socket).KVGet(t.Context(), connect.NewRequest(&agentv1.KVGetRequest{}))
	if err == nil || !strings.Contains(err.Error(), "admin.sock") {
		t.Fatalf("admin call on the reading socket: %v", err)
	}
	_, err = c.ListNodes(t.Context(), connect.NewRequest(&agentv1.ListNodesRequest{}))
	if connect.CodeOf(err) != connect.CodeUnimplemented || strings.Contains(err.Error(), "admin.sock") {
		t.Fatalf("call that an older agent does not know: %v", err)
	}
}

func TestDown(t *testing.T) {
	d := stateDir(t)
	dead := filepath.Join(d, "n1", "admin.sock")
	serve(t, dead, http.NotFoundHandler())
	if err := os.Rename(dead, dead+"2"); err != nil { // a socket that nobody listens on
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	for _, socket := range []string{dead, filepath.Join(d, "n2", "admin.sock")} {
		_, err := Admin(socket).KVGet(t.Context(), connect.NewRequest(&agentv1.KVGetRequest{}))
		if !Down(err) || !strings.Contains(err.Error(), "is not running") || !strings.Contains(err.Error(), "--state-dir "+d) {
			t.Errorf("%s: %v", socket, err)
		}
		if connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("code %v", connect.CodeOf(err))
		}
		s, err := Reader(socket).Monitor(t.Context(), connect.NewRequest(&agentv1.MonitorRequest{}))
		if err == nil {
			if s.Receive() {
				t.Error("message from nobody")
			}
			err = s.Err()
		}
		if !Down(err) {
			t.Errorf("stream: %v", err)
		}
	}
}

func TestNoPermission(t *testing.T) {
	err := &NoAgentError{Looked: []string{"/x/*/agent.sock"}, Denied: "/x"}
	if !strings.Contains(err.Error(), "permission") || strings.Contains(err.Error(), "start one") {
		t.Error(err)
	}
	if os.Geteuid() == 0 {
		t.Skip("root may read every directory")
	}
	d := stateDir(t)
	if err := os.Chmod(d, 0); err != nil {
		t.Fatal(err)
	}
	var no *NoAgentError
	if _, err := find([]string{d}, "", false); !errors.As(err, &no) || no.Denied != d {
		t.Error(err)
	}
}

// An agent that runs but does not serve is not to be started once more.
func TestStarting(t *testing.T) {
	d := stateDir(t)
	p := paths.For(d, "n1")
	if err := os.MkdirAll(p.State, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(p.Lock())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("4711"); err != nil {
		t.Fatal(err)
	}
	ask := func() error {
		_, err := Reader(p.AgentSocket()).Status(t.Context(), connect.NewRequest(&agentv1.StatusRequest{}))
		return err
	}
	if got, err := find([]string{d}, "", false); err != nil || got != p.AgentSocket() {
		t.Errorf("find: %q, %v", got, err)
	}
	if err := ask(); !Down(err) || !strings.Contains(err.Error(), "is not running") {
		t.Errorf("lock left behind: %v", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := ask(); !Down(err) || !strings.Contains(err.Error(), "pid 4711") || !strings.Contains(err.Error(), "starting") {
		t.Errorf("lock held: %v", err)
	}
}

// An agent whose state directory takes no socket is found where it went.
func TestRefuge(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the refuge is root's")
	}
	d := stateDir(t)
	socket := paths.For(d, "n1").AgentSocket()
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		t.Fatal(err)
	}
	refuge := paths.Refuge(socket)
	if err := os.MkdirAll(filepath.Dir(refuge), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(refuge)) })
	serve(t, refuge, reader(&fakeAgent{}))
	if accepts(paths.For(d, "n2").AgentSocket()) || !accepts(socket) {
		t.Error("another agent answers, or none")
	}
	if _, err := Reader(socket).Status(t.Context(), connect.NewRequest(&agentv1.StatusRequest{})); Down(err) {
		t.Error(err)
	}
}

func TestTimeout(t *testing.T) {
	socket := filepath.Join(stateDir(t), "n1", "agent.sock")
	f := &fakeAgent{hang: make(chan struct{})}
	serve(t, socket, reader(f))
	t.Cleanup(func() { close(f.hang) })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := Reader(socket).Status(ctx, connect.NewRequest(&agentv1.StatusRequest{}))
	if err == nil || Down(err) || !strings.Contains(err.Error(), "did not answer in time") {
		t.Fatal(err)
	}
}

func TestFind(t *testing.T) {
	for _, v := range []string{EnvSocket, EnvStateDir, EnvNodeName} {
		t.Setenv(v, "")
	}
	a, b := stateDir(t), stateDir(t)
	host, _ := os.Hostname()
	sock := func(dir, node string) string { return filepath.Join(dir, node, "admin.sock") }
	check := func(dirs []string, name, want string) {
		t.Helper()
		got, err := find(dirs, name, true)
		if err != nil || got != want {
			t.Errorf("find(%v, %q) = %q, %v, want %q", dirs, name, got, err, want)
		}
	}
	var no *NoAgentError
	if _, err := find([]string{a, b}, "", true); !errors.As(err, &no) || !strings.Contains(err.Error(), "hypha-agent") {
		t.Errorf("nothing there: %v", err)
	}
	serve(t, sock(b, "node2"), http.NotFoundHandler())
	serve(t, sock(b, "node1"), http.NotFoundHandler())
	check([]string{a, b}, "", sock(b, "node1"))
	check([]string{a, b}, "node2", sock(b, "node2"))
	if err := os.MkdirAll(filepath.Join(a, host), 0o700); err != nil {
		t.Fatal(err)
	}
	check([]string{a}, "", sock(a, host))       // down, but the one that is meant
	check([]string{a, b}, "", sock(b, "node1")) // a live one is better
	serve(t, sock(a, "aaa"), http.NotFoundHandler())
	serve(t, sock(a, host), http.NotFoundHandler())
	check([]string{a, b}, "", sock(a, host))

	if got, err := Find(a, "gone", "", false); err != nil || got != filepath.Join(a, "gone", "agent.sock") {
		t.Errorf("named: %q, %v", got, err)
	}
	if got, err := Find(a, "gone", "unix:///x.sock", false); err != nil || got != "/x.sock" {
		t.Errorf("explicit: %q, %v", got, err)
	}
	t.Setenv(EnvSocket, "/y.sock")
	if got, err := Find("", "", "", true); err != nil || got != "/y.sock" {
		t.Errorf("environment: %q, %v", got, err)
	}
	if got, err := Find(a, "gone", "", true); err != nil || got != sock(a, "gone") {
		t.Errorf("directory and node beside the environment's socket: %q, %v", got, err)
	}
	t.Setenv(EnvStateDir, b)
	if got, err := Find("", "node2", "", true); err != nil || got != sock(b, "node2") {
		t.Errorf("node beside the environment's socket: %q, %v", got, err)
	}
	if got, err := Find(a, "gone", "/z.sock", true); err != nil || got != "/z.sock" {
		t.Errorf("socket beside all: %q, %v", got, err)
	}
}
