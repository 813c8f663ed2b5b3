package kubeapi

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
)

// Front is another way to an API server: a listener, perhaps of another network namespace, whose connections are carried on.
type Front struct {
	to string

	told atomic.Int64

	mu    sync.Mutex
	l     net.Listener
	conns map[net.Conn]bool
}

// Told is how many bytes the API server has sent this way, TLS included.
func (f *Front) Told() int64 { return f.told.Load() }

// count counts what is written.
type count struct {
	io.Writer
	n *atomic.Int64
}

// Write implements io.Writer.
func (c count) Write(b []byte) (int, error) {
	n, err := c.Writer.Write(b)
	c.n.Add(int64(n))
	return n, err
}

// Front carries on what comes in at l, and writes a kubeconfig file for who comes that way.
func (s *Server) Front(t testing.TB, l net.Listener, kubeconfig string) *Front {
	t.Helper()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	f := &Front{to: u.Host, conns: map[net.Conn]bool{}}
	write(t, kubeconfig, fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://%s", tls-server-name: 127.0.0.1, certificate-authority: %q}}]
users: [{name: admin, user: {token: %s}}]
contexts: [{name: test, context: {cluster: test, user: admin}}]
current-context: test
`, l.Addr(), s.ca(), token))
	f.Open(l)
	t.Cleanup(f.Close)
	return f
}

// Open lets connections in.
func (f *Front) Open(l net.Listener) {
	f.mu.Lock()
	f.l = l
	f.mu.Unlock()
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go f.carry(in)
		}
	}()
}

// Close ends all connections, and lets no new ones in.
func (f *Front) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = f.l.Close()
	for c := range f.conns {
		_ = c.Close()
	}
}

func (f *Front) carry(in net.Conn) {
	out, err := net.Dial("tcp", f.to)
	if err != nil {
		_ = in.Close()
		return
	}
	f.mu.Lock()
	f.conns[in], f.conns[out] = true, true
	f.mu.Unlock()
	var wg sync.WaitGroup
	for _, d := range []struct {
		to   io.Writer
		from net.Conn
	}{{out, in}, {count{in, &f.told}, out}} {
		wg.Go(func() {
			_, _ = io.Copy(d.to, d.from)
			_ = errors.Join(in.Close(), out.Close())
		})
	}
	wg.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, in)
	delete(f.conns, out)
}
