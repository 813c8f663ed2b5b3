// Package machine makes namespaces look like a machine: a process that is number one there starts the machine's programs and starts them
// again when they end. A machine has a root directory, host name, processes, mounts and control groups of its own, and lives in a network
// namespace that it is given. Programs of the real machine (/usr) are there to read.
//
// When its first process ends, the kernel ends all others of it, containers included, and with them its mounts. The real machine
// sees none of these.
package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/process"
)

// Spec says what a machine is.
type Spec struct {
	Name     string            `json:"name"` // host name
	Root     string            `json:"root"` // directory of the real machine, made by Furnish
	Binds    []Bind            `json:"binds"`
	Groups   []string          `json:"groups"`   // directories of its control groups, made by MakeGroups
	Settings map[string]string `json:"settings"` // of the kernel ("vm/overcommit_memory") that programs may write without effect
	Programs []Program         `json:"programs"`
}

// Bind shows a directory of the real machine inside, read-only.
type Bind struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Program is one that runs as long as the machine does. Its output goes to /var/log/<name>.log.
type Program struct {
	Name string   `json:"name"`
	Args []string `json:"args"` // what to call it first
}

// Log is the file with a program's output, as the real machine sees it.
func (s Spec) Log(program string) string {
	return filepath.Join(s.Root, "var", "log", program+".log")
}

// Own is the name under which Log knows what the machine itself says.
const Own = "machine"

// The words by which Start's own program is called again.
const (
	word  = "hypha-machine"
	enter = "enter"
	first = "init"
)

// Start starts the machine in a network namespace. Its first process is named in pidFile before it does anything. The program that
// calls Start has to hand its arguments to Main before all else.
func Start(ctx context.Context, ns *netns.NS, s Spec, specFile, pidFile string) (process.ID, error) {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return process.ID{}, fmt.Errorf("start machine %s: %w", s.Name, err)
	}
	if err := os.WriteFile(specFile, b, 0o600); err != nil {
		return process.ID{}, fmt.Errorf("start machine %s: %w", s.Name, err)
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{word, enter, specFile, pidFile}
	cmd.Env = []string{"PATH=" + path}
	if _, err := ns.Output(cmd); err != nil {
		return process.ID{}, fmt.Errorf("start machine %s: %w", s.Name, err)
	}
	return process.ReadFile(pidFile)
}

// Main does what Start called the program for, and says whether that was so.
func Main(args []string) (called bool, err error) {
	if len(args) < 3 || args[0] != word {
		return false, nil
	}
	b, err := os.ReadFile(args[2])
	if err != nil {
		return true, err
	}
	var s Spec
	if err := json.Unmarshal(b, &s); err != nil {
		return true, fmt.Errorf("read %s: %w", args[2], err)
	}
	switch {
	case args[1] == enter && len(args) == 4:
		return true, s.enter(args[2], args[3])
	case args[1] == first:
		return true, s.first()
	}
	return true, errors.New("not to be called by hand")
}
