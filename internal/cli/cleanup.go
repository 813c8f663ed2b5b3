package cli

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/escape"
	"github.com/hypha-net/hypha/internal/paths"
)

func (e *env) cleanup() *cobra.Command {
	cmd := &cobra.Command{Use: "cleanup", Short: "Remove what a stopped agent left: devices, programs, maps and state", Args: need(0, 0, ""),
		Long: "Remove what a stopped agent left on this node: its devices, pinned programs and maps, and its state. Workloads lose\n" +
			"their network. Asks first; refuses while the agent runs. Run it in the agent's network namespace."}
	var force, keepState bool
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	cmd.Flags().BoolVar(&keepState, "keep-state", false, "keep the state directory (identities, policies, addresses)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if e.socket != "" {
			return usagef("cleanup goes by --state-dir and --node-name, not by --socket")
		}
		p, err := e.place()
		if err != nil {
			return err
		}
		if os.Geteuid() != 0 {
			return errors.New("cleanup needs root: it removes devices and eBPF programs")
		}
		if at := e.running(p); at != "" {
			return fmt.Errorf("the agent in %s is running: stop it first", at)
		}
		if e.Cleanup == nil {
			return errors.New("this program was built without the datapath's cleanup")
		}
		if !exists(p.State) && !exists(p.BPF) && !exists("/sys/class/net/hypha_vxlan") {
			e.say("There is nothing of an agent in %s or %s.", escape.Text(p.State), escape.Text(p.BPF))
			return nil
		}
		if !force {
			what := p.BPF + " and its devices"
			if !keepState {
				what = p.State + ", " + what
			}
			if !e.StdinTTY {
				return &usageError{what: "cleanup asks before it removes " + what + ", and there is no terminal to ask on", hint: "hypha cleanup --force"}
			}
			if !e.ask(cmd.Context(), "Remove "+escape.Text(what)+"? Workloads lose their network.") {
				e.say("Nothing was removed.")
				return silent{ExitFailed}
			}
		}
		if err := e.Cleanup(cmd.Context(), p); err != nil {
			return fmt.Errorf("clean up the kernel: %w", err)
		}
		fmt.Fprintf(e.Stdout, "removed the devices, programs and maps of %s\n", escape.Text(p.BPF))
		if err := os.RemoveAll(filepath.Dir(paths.Refuge(p.AgentSocket()))); err != nil {
			return fmt.Errorf("remove sockets: %w", err)
		}
		if keepState || !exists(p.State) {
			return nil
		}
		if err := os.RemoveAll(p.State); err != nil {
			return fmt.Errorf("remove state: %w", err)
		}
		_, err = fmt.Fprintf(e.Stdout, "removed %s\n", escape.Text(p.State))
		return err
	}
	return cmd
}

// place is the one agent that cleanup is about: never one that was only found.
func (e *env) place() (paths.Paths, error) {
	node := e.nodeName
	if node == "" {
		var err error
		if node, err = os.Hostname(); err != nil {
			return paths.Paths{}, usagef("this host has no name: say which agent with --node-name")
		}
	}
	if node != filepath.Base(node) || node == "." || node == ".." {
		return paths.Paths{}, usagef("%q is no node name", node)
	}
	return paths.For(or(e.stateDir, paths.StateDir), node), nil
}

// running is the directory of an agent that cleanup would hurt, "" if there is none: the one that is meant, or another one in
// this network namespace, since devices belong to the namespace.
func (e *env) running(p paths.Paths) string {
	for _, s := range []string{p.AdminSocket(), p.AgentSocket()} {
		c, err := net.DialTimeout("unix", s, time.Second)
		if err == nil {
			_ = c.Close() // nothing was written
			return p.State
		}
	}
	for _, dir := range []string{filepath.Dir(p.State), paths.StateDir} {
		others, _ := filepath.Glob(filepath.Join(dir, "*", filepath.Base(p.AdminSocket()))) // the pattern is well formed
		for _, s := range others {
			if sameNetwork(s) {
				return filepath.Dir(s)
			}
		}
	}
	return ""
}

// sameNetwork says whether who listens on the socket lives in this process's network namespace.
func sameNetwork(socket string) bool {
	c, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return true // it lives, and that is all that is known
	}
	var peer *unix.Ucred
	var perr error
	err = raw.Control(func(fd uintptr) { peer, perr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err != nil || perr != nil {
		return true
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", peer.Pid))
	if err != nil {
		return true
	}
	ours, err := os.Readlink("/proc/self/ns/net")
	return err != nil || ours == theirs
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
