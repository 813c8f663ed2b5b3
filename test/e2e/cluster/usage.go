package cluster

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// Usage is what an agent's process holds.
type Usage struct {
	Goroutines, Files int
	Heap              int64  // bytes in use after a collection
	RSS               int64  // bytes
	Stacks            string // of the goroutines, for people
}

// Usage asks the agent, which must run with the option pprof.
func (n *Node) Usage() (u Usage, err error) {
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.PID()))
	if err != nil {
		return u, fmt.Errorf("count files of %s: %w", n.Name, err)
	}
	u.Files = len(files)
	heap, err := n.profile("heap?gc=1&debug=1")
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(heap) {
		_, _ = fmt.Sscanf(line, "# HeapAlloc = %d", &u.Heap)
	}
	if u.Stacks, err = n.profile("goroutine?debug=1"); err != nil {
		return u, err
	}
	if _, err := fmt.Sscanf(u.Stacks, "goroutine profile: total %d", &u.Goroutines); err != nil || u.Heap == 0 {
		return u, fmt.Errorf("profiles of %s say nothing: %w", n.Name, err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.PID()))
	if err != nil {
		return u, fmt.Errorf("measure memory of %s: %w", n.Name, err)
	}
	for line := range strings.Lines(string(status)) {
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &u.RSS); err == nil {
			u.RSS <<= 10
		}
	}
	return u, nil
}

// profile asks an agent for a profile as text, on a connection of its own.
func (n *Node) profile(what string) (string, error) {
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		return n.NS.DialContext(ctx, network, addr)
	}}
	resp, err := (&http.Client{Transport: tr, Timeout: 20 * time.Second}).Get("http://127.0.0.1:6060/debug/pprof/" + what)
	if err != nil {
		return "", fmt.Errorf("profile of %s: %w", n.Name, err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", fmt.Errorf("profile of %s: %w", n.Name, err)
	}
	return string(b), nil
}
