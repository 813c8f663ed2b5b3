package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/hypha-net/hypha/internal/doctor"
	"github.com/hypha-net/hypha/internal/paths"
)

var update = flag.Bool("update", false, "write what the commands print into the scripts")

// program is the whole program as cmd/hypha wires it, with stand-ins for the kernel.
func program(name string) func() {
	return func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		os.Exit(Run(ctx, append([]string{name}, os.Args[1:]...), testDeps()))
	}
}

func testDeps() Deps {
	return Deps{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
		StdinTTY: os.Getenv("TEST_TTY") != "", StdoutTTY: os.Getenv("TEST_TTY") != "",
		Probe: func() []doctor.Check {
			return []doctor.Check{{Name: "tcx", Detail: "not there; clsact filters are used"},
				{Name: "map type ringbuf", OK: os.Getenv("TEST_OLD_KERNEL") == "", Required: true, Detail: "asked", Remedy: "boot Linux 5.10 or newer"}}
		},
		ParsePolicy: func(name string, doc []byte) (int, error) {
			if strings.Contains(string(doc), "bad") {
				return 0, errors.New(name + ": document 1, line 1: [0].ingres: unknown field")
			}
			return 1, nil
		},
		Cleanup: func(_ context.Context, p paths.Paths) error {
			if os.Getenv("TEST_STUCK") != "" {
				return errors.New("delete device hypha_vxlan: device or resource busy")
			}
			return nil
		},
		Cluster: func(f ClusterFlags) (Cluster, error) {
			if f.Kubeconfig == "broken" {
				return nil, errors.New("read kubeconfig: it is broken")
			}
			return &fakeCluster{ClusterFlags: f, options: map[string]string{"debug": "false", "mtu": "1400"}}, nil
		},
		MountBPF: func() error { return nil },
		Commands: func() []*cobra.Command {
			g := &cobra.Command{Use: "demo", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
			g.AddCommand(&cobra.Command{Use: "exec", RunE: func(*cobra.Command, []string) error { return codeError{} }})
			return []*cobra.Command{g}
		},
		Hubble: func() *cobra.Command {
			return group("hubble", "See flows", &cobra.Command{Use: "observe", Run: func(*cobra.Command, []string) {}})
		},
	}
}

type codeError struct{}

func (codeError) Error() string { return "false cannot be run" }
func (codeError) ExitCode() int { return 126 }

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"hypha": program("hypha"), "cilium": program("cilium"), "cilium-dbg": program("/usr/bin/cilium-dbg"), "hubble": program("hubble"),
	})
}

// TestScripts runs testdata/*.txtar. Further commands of the scripts:
//
//	agent [MODE]      start a fake agent (stopping the one before); its requests go to the file requests
//	noagent           stop it, leaving its sockets behind
//	exits CODE CMD... run a command that must end with this code
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		UpdateScripts:       *update,
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Condition: func(c string) (bool, error) {
			if c != "root" {
				return false, fmt.Errorf("unknown condition %q", c)
			}
			return os.Geteuid() == 0, nil
		},
		Setup: func(env *testscript.Env) error {
			dir, err := os.MkdirTemp("", "hy") // short: a socket's path has 107 bytes
			if err != nil {
				return err
			}
			env.Defer(func() { _ = os.RemoveAll(dir) })
			env.Setenv("HYPHA_STATE_DIR", dir)
			env.Setenv("HYPHA_NODE_NAME", "n1")
			env.Setenv("TZ", "UTC")
			if err := os.WriteFile(filepath.Join(env.WorkDir, "latin1.json"), []byte("[]\n\xfc"), 0o600); err != nil { // no text archive holds it
				return err
			}
			stop := func() {}
			env.Values["stop"] = &stop
			env.Defer(func() { stop() })
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"agent": func(ts *testscript.TestScript, _ bool, args []string) {
				stop := ts.Value("stop").(*func())
				(*stop)()
				dir := ts.Getenv("HYPHA_STATE_DIR")
				ts.Check(os.RemoveAll(filepath.Join(dir, "n1")))
				f := &fakeAgent{log: ts.MkAbs("requests")}
				if len(args) > 0 {
					f.mode = args[0]
				}
				ts.Check(os.WriteFile(f.log, nil, 0o600))
				var err error
				*stop, err = f.start(dir, "n1")
				ts.Check(err)
			},
			"noagent": func(ts *testscript.TestScript, _ bool, _ []string) { (*ts.Value("stop").(*func()))() },
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				got := 0
				if err := ts.Exec(args[1], args[2:]...); err != nil {
					var x *exec.ExitError
					if !errors.As(err, &x) {
						ts.Fatalf("run: %v", err)
					}
					got = x.ExitCode()
				}
				if got != want {
					ts.Fatalf("exit code %d, want %d\n%s%s", got, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
				}
			},
		},
	})
}
