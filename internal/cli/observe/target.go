package observe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/hypha-net/hypha/api/observer/observerpbconnect"
	"github.com/hypha-net/hypha/api/peer/peerpbconnect"
	"github.com/hypha-net/hypha/internal/paths"
)

// defaultServer is tried when no server is named and no agent runs here.
const defaultServer = "localhost:4245"

// target is one flow server.
type target struct {
	name  string // as the user would write it
	found bool   // by looking around: it may be a leftover
	lone  string // why the default server is asked
	dial  func(context.Context) (net.Conn, error)
	conf  *tls.Config
	host  string // for the authority of requests
}

// targets are the servers to ask: the one that is named, else all agents of this machine, else the default.
func (e *env) targets() ([]*target, error) {
	if e.portForward {
		return nil, usagef("--port-forward needs a Kubernetes cluster and is not supported; name a server with --server")
	}
	if e.server != "" {
		t, err := e.parse(e.server)
		return []*target{t}, err
	}
	var ts []*target
	for _, s := range e.sockets() {
		t := unixTarget(s, e.timeout)
		t.found = true
		ts = append(ts, t)
	}
	if len(ts) > 0 {
		return ts, nil
	}
	t, err := e.parse(defaultServer)
	if err != nil {
		return nil, err
	}
	t.lone = "no agent runs here (no socket under " + strings.Join(e.stateDirs(), " or ") + "), and "
	return []*target{t}, nil
}

// stateDirs are where agents of this machine keep their sockets.
func (e *env) stateDirs() []string {
	if e.stateDir != "" {
		return []string{e.stateDir}
	}
	return []string{paths.StateDir, paths.DemoDir}
}

// sockets are the flow sockets of agents on this machine.
func (e *env) sockets() []string {
	var out []string
	for _, d := range e.stateDirs() {
		found, _ := filepath.Glob(filepath.Join(d, "*", filepath.Base(paths.Paths{}.FlowSocket()))) // the pattern is fine
		slices.Sort(found)
		for i, s := range found {
			if _, err := os.Stat(paths.Refuge(s)); err == nil {
				found[i] = paths.Refuge(s)
			}
		}
		out = append(out, found...)
	}
	return out
}

func unixTarget(path string, timeout time.Duration) *target {
	return &target{name: "unix://" + path, host: "localhost", dial: func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{Timeout: timeout}).DialContext(ctx, "unix", path)
	}}
}

// parse reads the name of a server.
func (e *env) parse(s string) (*target, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		path = strings.TrimPrefix(path, "//")
		if path == "" {
			return nil, usagef("--server %q: want unix:///PATH", s)
		}
		return unixTarget(path, e.timeout), nil
	}
	addr, withTLS := strings.CutPrefix(s, "tls://")
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" || port == "" {
		return nil, usagef("--server %q: want HOST:PORT, tls://HOST:PORT or unix:///PATH", s)
	}
	t := &target{name: s, host: addr, dial: func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{Timeout: e.timeout}).DialContext(ctx, "tcp", addr)
	}}
	if withTLS || e.tls {
		if t.conf, err = e.tlsConfig(host); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (e *env) tlsConfig(host string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host, InsecureSkipVerify: e.tlsInsecure, NextProtos: []string{"h2"}}
	if e.tlsName != "" {
		c.ServerName = e.tlsName
	}
	if len(e.tlsCA) > 0 {
		c.RootCAs = x509.NewCertPool()
	}
	for _, f := range e.tlsCA {
		raw, err := os.ReadFile(f)
		if err != nil {
			return nil, usagef("--tls-ca-cert-files: %w", err)
		}
		if !c.RootCAs.AppendCertsFromPEM(raw) {
			return nil, usagef("--tls-ca-cert-files: no certificate in %s", f)
		}
	}
	if (e.tlsCert == "") != (e.tlsKey == "") {
		return nil, usagef("--tls-client-cert-file and --tls-client-key-file belong together")
	}
	if e.tlsCert != "" {
		cert, err := tls.LoadX509KeyPair(e.tlsCert, e.tlsKey)
		if err != nil {
			return nil, usagef("--tls-client-cert-file: %w", err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}

// server is a target with its services.
type server struct {
	*target
	close    func() // lets go of idle connections
	observer observerpbconnect.ObserverClient
	peer     peerpbconnect.PeerClient
	health   *connect.Client[healthpb.HealthCheckRequest, healthpb.HealthCheckResponse]
}

// connect prepares the clients; nothing is sent yet.
func (t *target) connect(timeout time.Duration) *server {
	tr := &http.Transport{Protocols: new(http.Protocols), DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return t.dial(ctx) }}
	scheme := "http://"
	if t.conf != nil {
		scheme = "https://"
		tr.TLSClientConfig, tr.TLSHandshakeTimeout = t.conf, timeout
		tr.Protocols.SetHTTP2(true)
	} else {
		tr.Protocols.SetUnencryptedHTTP2(true)
	}
	c, url := &http.Client{Transport: tr}, scheme+t.host
	return &server{target: t, close: tr.CloseIdleConnections,
		observer: observerpbconnect.NewObserverClient(c, url, connect.WithGRPC()),
		peer:     peerpbconnect.NewPeerClient(c, url, connect.WithGRPC()),
		health: connect.NewClient[healthpb.HealthCheckRequest, healthpb.HealthCheckResponse](c, url+"/grpc.health.v1.Health/Check",
			connect.WithGRPC()),
	}
}

// unreachable says whether nobody serves an address, or we may not know.
func unreachable(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// fail says what went wrong with a server, and what to do about it where that is clear.
func (t *target) fail(err error) error {
	var ce *connect.Error
	text := err.Error()
	if errors.As(err, &ce) {
		text = ce.Message()
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: permission denied: run as root, or join the group of the socket", t.name)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		if strings.HasPrefix(t.name, "unix:") {
			return fmt.Errorf("%s: no agent answers there: is hypha-agent running?", t.name)
		}
		return fmt.Errorf("%snobody answers at %s: is hypha-agent running? (--server names another)", t.lone, t.name)
	case t.conf != nil && errors.As(err, new(x509.UnknownAuthorityError)):
		return fmt.Errorf("%s: %s: name its CA, or for an agent's own certificate that one, with --tls-ca-cert-files", t.name, text)
	case ce != nil && (ce.Code() == connect.CodeInvalidArgument || ce.Code() == connect.CodeUnimplemented):
		return fmt.Errorf("%s refuses the request: %s", t.name, text)
	case ce != nil && ce.Code() == connect.CodeDeadlineExceeded:
		return fmt.Errorf("%s: no answer in time (--timeout, --request-timeout)", t.name)
	}
	if t.conf == nil && !strings.HasPrefix(t.name, "unix:") && ce != nil && ce.Code() == connect.CodeUnavailable && !connect.IsWireError(ce) {
		return fmt.Errorf("%s: %s: does the server want TLS? (--tls, or --server tls://%s)", t.name, text, t.name)
	}
	return fmt.Errorf("%s: %s", t.name, text)
}
