package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hypha-net/hypha/test/bench/meter"
)

// pprof asks the agent, which has to have been started with its profiles on.
func (s *site) pprof(ctx context.Context, path string) ([]byte, error) {
	return s.get(ctx, "http://127.0.0.1:6060/debug/pprof/"+path)
}

// get asks a server of the node's.
func (s *site) get(ctx context.Context, url string) ([]byte, error) {
	tr := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		err = s.node.NS.Do(func() error {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
			return err
		})
		return conn, err
	}}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	return io.ReadAll(resp.Body)
}

// profile takes the agent's CPU profile over some time, in the background, into a file of the wanted directory, and what is
// on its heap behind it; nothing when no profiles are wanted. A profile that fails is missing, no more.
func (s *site) profile(ctx context.Context, o options, name string, d time.Duration) {
	if o.prof == "" || s.name != "now" {
		return
	}
	go func() {
		for _, x := range []struct{ path, file string }{{fmt.Sprintf("profile?seconds=%.0f", d.Seconds()), name + ".cpu"}, {"heap", name + ".heap"}, {"heap?debug=1", name + ".text"}} {
			b, err := s.pprof(ctx, x.path)
			for i := 0; errors.Is(err, syscall.ECONNREFUSED) && i < 100; i++ { // it starts
				_ = meter.Wait(ctx, 100*time.Millisecond)
				b, err = s.pprof(ctx, x.path)
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(o.prof, x.file), b, 0o644)
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, "no profile:", err)
			}
		}
	}()
}
