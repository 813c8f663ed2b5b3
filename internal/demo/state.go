package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/process"
)

// state is what the demo knows of itself, kept in demo.json.
type state struct {
	BootID       string                `json:"bootID"` // processes and namespaces of another boot are gone
	Created      time.Time             `json:"created"`
	MountedBPF   bool                  `json:"mountedBPF"`   // bpffs is our mount
	MountedNetNS bool                  `json:"mountedNetns"` // /run/netns is our mount
	Agents       map[string]process.ID `json:"agents"`       // by node
	World        process.ID            `json:"world"`        // the server outside
	Pods         []pod                 `json:"pods"`         // by name
}

// pod is a workload that the demo was asked for.
type pod struct {
	Name      string       `json:"name"`
	Namespace string       `json:"namespace"`
	Node      string       `json:"node"`
	Labels    []string     `json:"labels"`
	Ports     []string     `json:"ports,omitempty"` // that policies may name: http:80/tcp
	Addrs     []netip.Addr `json:"addresses"`       // as of its last attachment
	Server    process.ID   `json:"server"`          // its workload
}

// errNone says that there is no demo in the directory.
var errNone = errors.New("the demo is not running: `hypha demo up` starts it")

// load reads the state; errNone when there is none.
func (d *Demo) load() (*state, error) {
	b, err := os.ReadFile(d.stateFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil, errNone
	}
	if err != nil {
		return nil, fmt.Errorf("read the demo's state: %w", err)
	}
	s := &state{}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("the demo's state %s is damaged (%w): `hypha demo down`, then up, makes a new demo", d.stateFile(), err)
	}
	if s.Agents == nil {
		s.Agents = map[string]process.ID{}
	}
	return s, nil
}

// update changes the state and writes it, in one step for readers.
func (d *Demo) update(fn func(*state)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	fn(d.state)
	b, err := json.MarshalIndent(d.state, "", "  ")
	if err != nil {
		return fmt.Errorf("write the demo's state: %w", err)
	}
	return replaceFile(d.stateFile(), b)
}

// setPod inserts or replaces a pod.
func (d *Demo) setPod(p pod) error {
	return d.update(func(s *state) {
		i, found := slices.BinarySearchFunc(s.Pods, p, func(a, b pod) int { return strings.Compare(a.Name, b.Name) })
		if found {
			s.Pods[i] = p
		} else {
			s.Pods = slices.Insert(s.Pods, i, p)
		}
	})
}

func (d *Demo) dropPod(name string) error {
	return d.update(func(s *state) {
		s.Pods = slices.DeleteFunc(s.Pods, func(p pod) bool { return p.Name == name })
	})
}

// find returns the pod of this name.
func (d *Demo) find(name string) (pod, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.IndexFunc(d.state.Pods, func(p pod) bool { return p.Name == name })
	if i < 0 {
		return pod{}, false
	}
	return d.state.Pods[i], true
}

// pods are those of the state, a copy.
func (d *Demo) pods() []pod {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.state.Pods)
}

func replaceFile(path string, b []byte) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// lock makes the directory and keeps other processes out until unlock, or until this one ends. make says whether the
// directory is to be made; if not and it is not there, the answer is errNone.
func (d *Demo) lock(make bool) (unlock func(), err error) {
	for {
		if make {
			if err := os.MkdirAll(d.dir, 0o755); err != nil {
				return nil, fmt.Errorf("make the demo's directory: %w", err)
			}
		}
		f, err := os.Open(d.dir)
		if errors.Is(err, os.ErrNotExist) && !make {
			return nil, errNone
		}
		if err != nil {
			return nil, fmt.Errorf("lock the demo: %w", err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = f.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, errors.New("another `hypha demo` is changing the demo: wait for it to end")
			}
			return nil, fmt.Errorf("lock the demo: %w", err)
		}
		// `down` may have deleted the directory between opening and locking it.
		mine, err1 := f.Stat()
		now, err2 := os.Stat(d.dir)
		if err1 == nil && err2 == nil && os.SameFile(mine, now) {
			return func() { _ = f.Close() }, nil
		}
		_ = f.Close()
	}
}

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

// ownFiles are what the demo itself puts into its directory, besides the agents' directories.
func (d *Demo) ownFiles() []string {
	out := []string{d.stateFile(), d.hostsFile(), d.policyFile(), filepath.Join(d.dir, "log")}
	for _, n := range nodes {
		out = append(out, filepath.Join(d.dir, n.name), filepath.Join(d.dir, n.name+".yaml"))
	}
	return out
}
