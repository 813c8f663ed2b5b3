package e2e

import (
	"bufio"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/hypha-net/hypha/internal/testutil/score"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// What an agent opens to others, all of it: unix sockets with mode and owner, and what listens in the node's namespace. A line
// that is new here is a decision.
const surface = `admin.sock -rw-rw---- root:root
agent.sock -rw-rw---- root:root
etcd/client.sock -rw------- root:root
etcd/peer.sock -rw------- root:root
hubble.sock -rw-rw---- root:root
tcp 127.0.0.1:2379
tcp 172.29.0.1:2379
tcp [::]:4244
udp 0.0.0.0:8472
udp [::]:8472
`

// TestCase43Surface: sockets and listeners are exactly those of the list above (CVE-2022-29178, CVE-2026-49445: sockets that
// others than root could open).
func TestCase43Surface(t *testing.T) {
	sc := score.Start(t, "43", "sockets, their modes, and listeners equal a list")
	c := start(t, overlay, 1, nil)
	add(t, c, "a", 0)
	got := strings.Join(slices.Concat(sockets(t, c.Nodes[0]), listeners(t, c.Nodes[0])), "\n") + "\n"
	if got != surface {
		t.Errorf("open to others:\n%s\nwant\n%s", got, surface)
	}
	for dir, want := range map[string]fs.FileMode{c.Nodes[0].Paths.State: 0o700, filepath.Join(c.Nodes[0].Paths.State, "pki"): 0o700} {
		if st, err := os.Stat(dir); err != nil || st.Mode().Perm()&0o027 != 0 {
			t.Errorf("%s: mode %v, want at most %v, %v", dir, st.Mode(), want, err)
		}
	}
	sc.Count(strings.Count(surface, "\n"), "sockets and listeners")
	sc.Say("as listed")
}

func sockets(t *testing.T, n *cluster.Node) (out []string) {
	t.Helper()
	err := filepath.WalkDir(n.Paths.State, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSocket == 0 {
			return err
		}
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		own := st.Sys().(*syscall.Stat_t)
		owner := "root:root"
		if own.Uid != 0 || own.Gid != 0 {
			owner = fmt.Sprintf("%d:%d", own.Uid, own.Gid)
		}
		rel, err := filepath.Rel(n.Paths.State, path)
		out = append(out, fmt.Sprintf("%s -%s %s", rel, strings.TrimPrefix(st.Mode().Perm().String(), "-"), owner))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// listeners reads what listens in a node's namespace; etcd's and the flow API's own choice of port is fixed by the options.
func listeners(t *testing.T, n *cluster.Node) []string {
	t.Helper()
	found := map[string]bool{}
	err := n.NS.Do(func() error {
		for _, proto := range []string{"tcp", "tcp6", "udp", "udp6"} {
			f, err := os.Open("/proc/thread-self/net/" + proto)
			if err != nil {
				return err
			}
			for s := bufio.NewScanner(f); s.Scan(); {
				x := strings.Fields(s.Text())
				if len(x) < 4 || x[0] == "sl" || strings.HasPrefix(proto, "tcp") && x[3] != "0A" { // LISTEN
					continue
				}
				found[strings.TrimSuffix(proto, "6")+" "+socketAddr(x[1])] = true
			}
			if err := f.Close(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(found))
}

// socketAddr reads the kernel's form: words of 32 bits in host byte order, in hex.
func socketAddr(s string) string {
	host, port, _ := strings.Cut(s, ":")
	b, _ := hex.DecodeString(host)
	for i := 0; i+3 < len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
	a, _ := netip.AddrFromSlice(b)
	p, _ := strconv.ParseUint(port, 16, 16)
	return netip.AddrPortFrom(a, uint16(p)).String()
}

// TestCase44Secrets: no private key of the agent, nor a line of one, is in its log at debug level or in what debuginfo
// collects.
func TestCase44Secrets(t *testing.T) {
	sc := score.Start(t, "44", "canary secrets in logs and debuginfo")
	c := start(t, overlay, 1, map[string]any{"debug": true})
	add(t, c, "a", 0)
	n := c.Nodes[0]
	var secrets []string
	err := filepath.WalkDir(n.Paths.State, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".key") {
			return err
		}
		data, err := os.ReadFile(path)
		if block, _ := pem.Decode(data); err == nil && block != nil {
			for line := range strings.Lines(string(data)) {
				if line = strings.TrimSpace(line); len(line) > 20 && !strings.HasPrefix(line, "---") {
					secrets = append(secrets, line)
				}
			}
			secrets = append(secrets, hex.EncodeToString(block.Bytes))
		}
		return err
	})
	if err != nil || len(secrets) == 0 {
		t.Fatalf("%d secrets, %v", len(secrets), err)
	}
	info, err := c.Hypha(t.Context(), n, "debuginfo")
	if err != nil {
		t.Fatal(err)
	}
	config, err := c.Hypha(t.Context(), n, "config", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	for where, text := range map[string]string{"log": n.Log(1 << 20), "debuginfo": info, "config": config} {
		if len(text) < 100 {
			t.Errorf("%s says nothing: %q", where, text)
		}
		for _, s := range secrets {
			if strings.Contains(text, s) {
				t.Errorf("%s holds a private key", where)
			}
		}
	}
	sc.Count(len(secrets), "pieces of private keys")
	sc.Say("0 found in log, debuginfo and config")
}
