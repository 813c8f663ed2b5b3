package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// profile takes the agent's CPU profile over some time, in the background, into a file of the wanted directory, and what is
// on its heap behind it; nothing when no profiles are wanted. A profile that fails is missing, no more.
func (s *site) profile(ctx context.Context, o options, name string, d time.Duration) {
	if o.prof == "" || s.name != "now" {
		return
	}
	web := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		err = s.node.NS.Do(func() error {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
			return err
		})
		return conn, err
	}}}
	fetch := func(path, file string) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:6060/debug/pprof/"+path, nil)
		var resp *http.Response
		if err == nil {
			resp, err = web.Do(req)
		}
		if err == nil {
			defer func() { _ = resp.Body.Close() }()
			var b []byte
			if b, err = io.ReadAll(resp.Body); err == nil {
				err = os.WriteFile(filepath.Join(o.prof, file), b, 0o644)
			}
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "no profile:", err)
		}
	}
	go func() {
		fetch(fmt.Sprintf("profile?seconds=%.0f", d.Seconds()), name+".cpu")
		fetch("heap", name+".heap")
	}()
}
