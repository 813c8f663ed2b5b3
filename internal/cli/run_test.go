package cli

import (
	"bytes"
	"context"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

// buffer is a writer that can be looked at while a command writes.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestInterrupted: a command that is interrupted ends with 130 and without a word, whatever it was doing.
func TestInterrupted(t *testing.T) {
	dir, err := os.MkdirTemp("", "hy")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	stop, err := (&fakeAgent{mode: "long"}).start(dir, "n1")
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	never, w := io.Pipe()
	defer w.Close()
	for _, c := range []struct {
		args []string
		seen string // in the output, before the interrupt
	}{
		{[]string{"monitor"}, "9 events lost"},
		{[]string{"policy", "wait", "9"}, ""},
		{[]string{"policy", "delete", "--all"}, "[y/N]"},
		{[]string{"status", "--wait", "--node-name", "n2"}, ""},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		var out, errs buffer
		d := Deps{Stdin: never, Stdout: &out, Stderr: &errs, StdinTTY: true, Getenv: func(string) string { return "" }}
		code := make(chan int, 1)
		go func() {
			code <- Run(ctx, append([]string{"hypha", "--state-dir", dir, "--node-name", "n1"}, c.args...), d)
		}()
		for end := time.Now().Add(5 * time.Second); !strings.Contains(out.String()+errs.String(), c.seen); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%v: printed %q %q", c.args, out.String(), errs.String())
			}
		}
		time.Sleep(50 * time.Millisecond)
		cancel()
		select {
		case got := <-code:
			if got != ExitInterrupted {
				t.Errorf("%v: code %d, %s", c.args, got, errs.String())
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%v goes on after an interrupt", c.args)
		}
		if strings.Contains(errs.String(), "Error") {
			t.Errorf("%v: %s", c.args, errs.String())
		}
	}
}

// TestTree checks every command: it has a description, checks its arguments, and can answer as JSON, but for those that
// only do something.
func TestTree(t *testing.T) {
	d := Deps{Getenv: func(string) string { return "" }}
	var silentOnes []string
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: description %q", c.CommandPath(), c.Short)
		}
		if c.Runnable() && c.Args == nil && c.HasParent() {
			t.Errorf("%s takes any argument", c.CommandPath())
		}
		if c.Runnable() && !c.HasSubCommands() && c.Flags().Lookup("output") == nil {
			silentOnes = append(silentOnes, strings.TrimPrefix(c.CommandPath(), "hypha "))
		}
		for _, s := range c.Commands() {
			walk(s)
		}
	}
	walk(tree("hypha", d))
	slices.Sort(silentOnes)
	want := []string{"cleanup", "completion", "config delete", "config set", "connectivity test", "kvstore delete", "kvstore set", "setup cni"}
	if diff := cmp.Diff(want, silentOnes); diff != "" {
		t.Errorf("commands without -o: %s", diff)
	}
}

func TestNames(t *testing.T) {
	for argv0, want := range map[string]string{
		"hypha": "hypha", "/usr/bin/cilium": "cilium", "./cilium-dbg": "cilium-dbg", "hypha-new": "hypha", "": "hypha",
	} {
		var out bytes.Buffer
		d := Deps{Stdout: &out, Stderr: io.Discard, Getenv: func(string) string { return "" }}
		if code := Run(t.Context(), []string{argv0, "--help"}, d); code != ExitOK || !strings.Contains(out.String(), "\n  "+want+" [command]\n") {
			t.Errorf("%s: code %d, %s", argv0, code, out.String())
		}
	}
}
