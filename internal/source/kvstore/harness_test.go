package kvstore

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/paths"
)

// testLog writes to the test's output.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	defer func() { _ = recover() }() // a log line behind the end of the test
	w.t.Logf("%s", b)
	return len(b), nil
}

// shortDir is a temporary directory whose name leaves room for a socket's.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hypha-kv-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// embedded is the configuration of an embedded store without listeners.
func embedded(t testing.TB, node string) Config {
	return Config{NodeName: node, Paths: paths.For(shortDir(t), node), CheckEvery: 200 * time.Millisecond, Retry: time.Second}
}

// open opens a store and closes it at the end of the test.
func open(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Open(testContext(t), cfg, Deps{Log: testLog(t).With("node", cfg.NodeName)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func ready(t testing.TB, s *Store) *Store {
	t.Helper()
	if err := s.Ready(testContext(t)); err != nil {
		t.Fatal(err)
	}
	return s
}

// pair is a first node with the embedded store, served over TLS, and the configuration of others.
func pair(t testing.TB) (*Store, func(node string) Config) {
	t.Helper()
	cfg := embedded(t, "node1")
	addr := freePort(t)
	cfg.Listen = []string{"https://" + addr}
	s := ready(t, open(t, cfg))
	return s, func(node string) Config {
		other := embedded(t, node)
		other.Endpoints = cfg.Listen
		other.TLS, _ = s.ClientFiles()
		return other
	}
}

// eventually waits until cond gives no error.
func eventually(t testing.TB, limit time.Duration, cond func() error) {
	t.Helper()
	end := time.Now().Add(limit)
	for {
		err := cond()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after %v: %v", limit, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func labels(t testing.TB, ss ...string) model.Labels {
	t.Helper()
	return must[model.Labels](t)(model.ParseLabels(ss, model.SourceK8s))
}

func testNode(name string, n byte) model.Node {
	return model.Node{
		Name: name, Cluster: DefaultCluster, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, n})},
		PodCIDRs: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, n, 0}), 24)},
	}
}

func has[K, V any](get func(K) (V, bool), k K) error {
	if _, ok := get(k); !ok {
		return fmt.Errorf("no row %v", k)
	}
	return nil
}
