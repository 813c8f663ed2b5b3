package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/hypha-net/hypha/internal/process"
)

// state is what a cluster remembers of itself, in cluster.json.
type state struct {
	BootID       string   `json:"bootID"` // processes of another boot are gone
	Nodes        int      `json:"nodes"`
	DualStack    bool     `json:"dualStack"`
	Member       bool     `json:"member"`
	MountedNetNS bool     `json:"mountedNetns"` // /run/netns is our mount
	Controllers  []string `json:"controllers"`  // of control groups, that groups may have because of us
	Ready        bool     `json:"ready"`        // Up has come to its end
}

// load reads the state. The error is fs.ErrNotExist where there is no cluster.
func (c *Cluster) load() (state, error) {
	var s state
	b, err := os.ReadFile(c.path("cluster.json"))
	if err != nil {
		return s, fmt.Errorf("read the cluster's state: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("read the cluster's state: %w", err)
	}
	return s, nil
}

func (c *Cluster) store(s state) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err == nil {
		err = os.WriteFile(c.path("cluster.json.tmp"), b, 0o644)
	}
	if err == nil {
		err = os.Rename(c.path("cluster.json.tmp"), c.path("cluster.json"))
	}
	if err != nil {
		return fmt.Errorf("write the cluster's state: %w", err)
	}
	return nil
}

// machine is the first process of a machine that has been started; false when it does not run.
func (c *Cluster) machine(name string) (process.ID, bool, error) {
	id, err := process.ReadFile(c.pidFile(name))
	if errors.Is(err, fs.ErrNotExist) {
		return id, false, nil
	}
	return id, err == nil && id.Alive(), err
}

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
