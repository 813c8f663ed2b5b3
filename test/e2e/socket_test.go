package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/testutil/score"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// agentSockets are the agent's sockets below its state directory.
var agentSockets = []string{"agent.sock", "admin.sock", "hubble.sock", "etcd/client.sock", "etcd/peer.sock"}

// nobody is a user without rights.
const nobody = 65534

// asNobody runs fn as a user who is not root but in these groups. fn must do its system calls itself: they go by the thread.
func asNobody(groups []uint32, fn func()) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: nobody must get this thread
		_, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0)
		if e == 0 {
			_, _, e = unix.RawSyscall(unix.SYS_SETRESGID, nobody, nobody, nobody)
		}
		if e == 0 {
			_, _, e = unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody)
		}
		if e != 0 {
			done <- fmt.Errorf("become nobody: %w", e)
			return
		}
		fn()
		done <- nil
	}()
	return <-done
}

// knockSocket connects to a unix socket, by this very thread.
func knockSocket(path string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.Connect(fd, &unix.SockaddrUnix{Name: path})
}

// allGroups but root's and these.
func allGroups(but ...uint32) (out []uint32) {
	skip := map[uint32]bool{}
	for _, g := range but {
		skip[g] = true
	}
	for g := uint32(1); g < 65536; g++ {
		if !skip[g] {
			out = append(out, g)
		}
	}
	return out
}

// openDirs lets everybody see the sockets, as an administrator might who wants to look around: only their own modes guard them then.
func openDirs(n *cluster.Node) error {
	return errors.Join(os.Chmod(n.Paths.State, 0o755), os.Chmod(filepath.Join(n.Paths.State, "etcd"), 0o755))
}

// TestCVE_2022_29178_SocketGroup: without the option no group but root's opens a socket, whichever it is; with it, exactly the named
// group opens those of the agent and never the store's.
func TestCVE_2022_29178_SocketGroup(t *testing.T) {
	sc := score.Start(t, "CVE-2022-29178", "sockets opened by a member of all groups but root's")
	const games = 60 // Debian's, on every machine
	tried := 0
	for _, x := range []struct {
		name    string
		options map[string]any
	}{{"no group", nil}, {"a group", map[string]any{"socket-group": "games"}}} {
		t.Run(x.name, func(t *testing.T) {
			c := start(t, overlay, 1, x.options)
			n := c.Nodes[0]
			for _, open := range []bool{false, true} {
				if open {
					if err := openDirs(n); err != nil {
						t.Fatal(err)
					}
				}
				for _, s := range agentSockets {
					path := filepath.Join(n.Paths.State, s)
					err := asNobody(allGroups(games), func() {
						if err := knockSocket(path); !errors.Is(err, unix.EACCES) {
							t.Errorf("directories open %t: a member of all groups but root's and the named one opens %s: %v", open, s, err)
						}
					})
					if err != nil {
						t.Fatal(err)
					}
					may := x.options != nil && filepath.Dir(s) == "."
					if err := asNobody([]uint32{games}, func() {
						if err := knockSocket(path); (err == nil) != may {
							t.Errorf("directories open %t: a member of the named group opens %s: %v, want success %t", open, s, err, may)
						}
					}); err != nil {
						t.Fatal(err)
					}
					if err := knockSocket(path); err != nil {
						t.Errorf("root opens %s: %v", s, err)
					}
					tried += 2
				}
			}
		})
	}
	sc.Count(tried, "attempts")
	sc.Say("only who is named, and never the store's sockets")
}

// TestCVE_2026_49445_AdminSocket: a user without rights opens no socket at any moment of the agent's start, the directories being
// open, and neither asks the store by its ports without a certificate.
func TestCVE_2026_49445_AdminSocket(t *testing.T) {
	sc := score.Start(t, "CVE-2026-49445", "sockets knocked on without a pause while the agent starts, by a user without rights")
	c := start(t, overlay, 1, nil)
	n := c.Nodes[0]
	var wg sync.WaitGroup
	quit := make(chan struct{})
	tried, opened := make([]int, len(agentSockets)), make([]int, len(agentSockets))
	var ready sync.WaitGroup
	for i, s := range agentSockets {
		path := filepath.Join(n.Paths.State, s)
		ready.Add(1)
		wg.Go(func() {
			err := asNobody(nil, func() {
				ready.Done()
				for {
					select {
					case <-quit:
						return
					default:
					}
					if err := knockSocket(path); err == nil {
						opened[i]++
					} else if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ECONNREFUSED) {
						tried[i]++ // there, and not for him
					}
					time.Sleep(50 * time.Microsecond)
				}
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	ready.Wait()
	starts := score.Size(3, 30)
	var err error
	for range starts {
		if err = errors.Join(n.Kill(), openDirs(n), os.Chmod(c.Dir, 0o755)); err != nil {
			break
		}
		if err = n.Start(t.Context(), 1); err != nil {
			break
		}
	}
	close(quit)
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	all := 0
	for i, s := range agentSockets {
		if all += tried[i]; opened[i] > 0 || tried[i] == 0 {
			t.Errorf("%s: opened %d times, refused %d times", s, opened[i], tried[i])
		}
	}
	for _, url := range []string{"http://127.0.0.1:2379", "https://127.0.0.1:2379", "http://172.29.0.1:2379", "https://172.29.0.1:2379"} {
		for _, path := range []string{"/version", "/v3/kv/range", "/health", "/metrics"} {
			tr := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // an attacker does not mind
				DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
					return n.NS.DialContext(ctx, network, addr)
				}}
			resp, err := (&http.Client{Transport: tr, Timeout: yes}).Post(url+path, "application/json", nil)
			if err == nil {
				_ = resp.Body.Close()
			}
			if err == nil && resp.StatusCode != http.StatusBadRequest { // "HTTP to an HTTPS server"
				t.Errorf("%s%s without a certificate: %s", url, path, resp.Status)
			}
			all++
		}
	}
	sc.Count(all, "attempts that met a socket")
	sc.Say("0 opened in %d starts; the store answers nobody without a certificate", starts)
}
