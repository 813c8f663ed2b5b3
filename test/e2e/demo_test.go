package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hypha-net/hypha/internal/demo"
	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/paths"
	tns "github.com/hypha-net/hypha/internal/testutil/netns"
)

// demoRun runs `hypha demo ...` on a demo of the test's own.
type demoRun struct {
	t   *testing.T
	dir string
}

// run returns standard output and the exit code; -1 when it was not run.
func (d demoRun) run(stdin string, args ...string) (string, string, int) {
	d.t.Helper()
	cmd := exec.CommandContext(d.t.Context(), bin.Hypha, append([]string{"demo", "--dir", d.dir}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		d.t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

func (d demoRun) ok(args ...string) string {
	d.t.Helper()
	out, errOut, code := d.run("", args...)
	if code != 0 {
		d.t.Fatalf("hypha demo %v: exit code %d\n%s%s", args, code, out, errOut)
	}
	return out
}

func (d demoRun) pods() map[string]demo.PodInfo {
	d.t.Helper()
	var list []demo.PodInfo
	if err := json.Unmarshal([]byte(d.ok("pods", "-o", "json")), &list); err != nil {
		d.t.Fatal(err)
	}
	all := map[string]demo.PodInfo{}
	for _, p := range list {
		all[p.Name] = p
	}
	return all
}

// newDemo is one in a place of its own, which is not there yet.
func newDemo(t *testing.T) demoRun {
	t.Helper()
	dir, err := os.MkdirTemp("", "hypha-demo-test-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	return demoRun{t: t, dir: dir}
}

// TestDemo runs the demo's story with the real binaries: up, again up, the pods, exec, mistakes, crashes, down without a
// trace.
func TestDemo(t *testing.T) {
	tns.Require(t)
	if testing.Short() {
		t.Skip("takes long: not with -short")
	}
	d := newDemo(t)
	dir := d.dir
	t.Cleanup(func() {
		if t.Failed() {
			for _, f := range []string{"node1", "node2"} {
				if b, err := os.ReadFile(filepath.Join(dir, "log", f+".log")); err == nil {
					t.Logf("%s:\n%s", f, b[max(0, len(b)-4000):])
				}
			}
		}
		cmd := exec.Command(bin.Hypha, "demo", "--dir", dir, "down")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("down: %v\n%s", err, out)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is still there", dir)
		}
	})
	begin := time.Now()
	out := d.ok("up")
	t.Logf("up took %s", time.Since(begin))
	for _, want := range []string{"app2 ", "app2-remote", "allowed", "denied", "observe --verdict DROPPED", "The end: "} {
		if !strings.Contains(out, want) {
			t.Errorf("up does not print %q:\n%s", want, out)
		}
	}
	d.ok("status")
	first := d.pods()
	if len(first) != 4 || first["app1"].Identity == 0 || len(first["app1"].Addresses) != 2 || first["app2"].Identity != first["app2-remote"].Identity {
		t.Fatalf("pods: %+v", first)
	}
	prefix := strings.TrimSuffix(filepath.Base(first["app1"].NetNS), "app1") // of this demo's namespaces
	if len(namespaces(t, prefix)) < 7 {
		t.Errorf("namespaces with %s: %v", prefix, namespaces(t, prefix))
	}
	out = d.ok("up")
	for name, p := range d.pods() {
		if q := first[name]; p.Endpoint != q.Endpoint || !slices.Equal(p.Addresses, q.Addresses) {
			t.Errorf("a second up changed %s: %+v, was %+v\n%s", name, p, q, out)
		}
	}

	t.Run("exec", func(t *testing.T) {
		d := demoRun{t: t, dir: dir}
		if out, errOut, code := d.run("", "exec", "app2", "--", bin.Hypha, "workload", "get", "app1"); code != 0 || !strings.HasPrefix(out, "app1 on node1") {
			t.Errorf("get: %q %q %d", out, errOut, code)
		}
		if out, _, code := d.run("", "exec", "app3", "--", bin.Hypha, "workload", "get", "--timeout", "500ms", "app1"); code == 0 {
			t.Errorf("app3 reached app1: %q", out)
		}
		// By the service's address: policy is judged on who stands behind it.
		for _, from := range []string{"app2", "app2-remote"} {
			if out, errOut, code := d.run("", "exec", from, "--", bin.Hypha, "workload", "get", "http://web/"); code != 0 || !strings.HasPrefix(out, "app1 on node1") {
				t.Errorf("get web from %s: %q %q %d", from, out, errOut, code)
			}
		}
		if out, _, code := d.run("", "exec", "app3", "--", bin.Hypha, "workload", "get", "--timeout", "500ms", "http://web/"); code == 0 {
			t.Errorf("app3 reached app1 by its service: %q", out)
		}
		if out, errOut, code := d.run("", "exec", "app2", "--", bin.Hypha, "workload", "get", "--timeout", "500ms", "http://web:81/"); code == 0 || !strings.Contains(out+errOut, "refused") {
			t.Errorf("a port of the service's address that nobody serves: %q %q %d", out, errOut, code)
		}
		eventually(t, 10*time.Second, "a flow to the service", func() error {
			out, err := exec.Command(bin.Hypha, "observe", "--state-dir", dir, "--type", "trace-sock", "--last", "50").CombinedOutput()
			if err != nil || !strings.Contains(string(out), "default/web:80") {
				return fmt.Errorf("no flow names the service: %s\n%s", fmt.Sprint(err), out)
			}
			return nil
		})
		if _, _, code := d.run("", "exec", "app2", "--", "sh", "-c", "exit 37"); code != 37 {
			t.Errorf("exit code %d, want 37", code)
		}
		if out, _, code := d.run("hello", "exec", "app2", "--", "cat"); code != 0 || out != "hello" {
			t.Errorf("stdin: %q %d", out, code)
		}
		if out, _, _ := d.run("", "exec", "app2", "--", "sh", "-c", "echo -n -x --"); out != "-x --" && out != "-n -x --\n" {
			t.Errorf("flags of the command: %q", out)
		}
		for _, c := range []struct {
			code int
			args []string
		}{{127, []string{"exec", "app2", "--", "no-such-command"}}, {126, []string{"exec", "app2", "--", "/etc/hosts"}},
			{2, []string{"exec", "nobody", "--", "true"}}, {2, []string{"exec", "app2"}}, {2, []string{"exec"}}} {
			if out, errOut, code := d.run("", c.args...); code != c.code || errOut == "" {
				t.Errorf("%v: exit code %d, want %d: %q %q", c.args, code, c.code, out, errOut)
			}
		}
	})

	t.Run("signal", func(t *testing.T) {
		cmd := exec.Command(bin.Hypha, "demo", "--dir", dir, "exec", "app2", "--", "sleep", "60")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond)
		_ = cmd.Process.Signal(os.Interrupt)
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			t.Error("an interrupt did not end the command")
		}
	})

	t.Run("pods", func(t *testing.T) {
		d := demoRun{t: t, dir: dir}
		d.ok("pod", "add", "extra", "--node", "node2", "--labels", "id=app2,team=x", "--namespace", "default")
		p := d.pods()["extra"]
		if p.Node != "node2" || p.State != "ready" || !p.Serving || !slices.ContainsFunc(p.Labels, func(l string) bool { return strings.Contains(l, "team=x") }) {
			t.Errorf("%+v", p)
		}
		if out := d.ok("exec", "extra", "--", bin.Hypha, "workload", "get", "app1"); !strings.HasPrefix(out, "app1 on node1") {
			t.Errorf("the new app2 does not reach app1: %q", out)
		}
		for _, c := range []struct {
			code int
			args []string
		}{
			{1, []string{"pod", "add", "extra"}}, {2, []string{"pod", "add", "x", "--node", "node9"}}, {2, []string{"pod", "add", "x", "--labels", "a=b;c"}},
			{2, []string{"pod", "add", "X"}}, {2, []string{"pod", "add", "x", "--labels", "reserved:host"}}, {2, []string{"pod", "delete", "nobody"}},
			{2, []string{"pod", "add"}}, {2, []string{"pods", "-o", "xml"}}, {2, []string{"up", "now"}},
		} {
			if out, errOut, code := d.run("", c.args...); code != c.code || errOut == "" {
				t.Errorf("%v: exit code %d, want %d: %q %q", c.args, code, c.code, out, errOut)
			}
		}
		d.ok("pod", "delete", "extra")
		if _, there := d.pods()["extra"]; there {
			t.Error("the pod is still listed")
		}
	})

	t.Run("repair", func(t *testing.T) {
		d := demoRun{t: t, dir: dir}
		status := func() demo.Report {
			out, errOut, _ := d.run("", "status", "-o", "json")
			var r demo.Report
			if err := json.Unmarshal([]byte(out), &r); err != nil {
				t.Fatalf("%v\n%s%s", err, out, errOut)
			}
			return r
		}
		agent, err := os.FindProcess(status().Nodes[0].PID)
		if err != nil {
			t.Fatal(err)
		}
		_ = agent.Kill()
		if err := netns.Delete(filepath.Base(d.pods()["app3"].NetNS)); err != nil {
			t.Fatal(err)
		}
		eventually(t, yes, "status sees it", func() error {
			if len(status().Problems) < 2 {
				return errors.New("too few problems")
			}
			return nil
		})
		if _, _, code := d.run("", "status"); code != 1 {
			t.Errorf("exit code %d of a sick demo", code)
		}
		d.ok("up")
		if r := status(); len(r.Problems) > 0 {
			t.Errorf("after the repair: %v", r.Problems)
		}
	})

	d.ok("down")
	d.ok("down")
	if left := namespaces(t, prefix); len(left) > 0 {
		t.Errorf("namespaces are left: %v", left)
	}
	for _, node := range []string{"node1", "node2"} {
		if pins := paths.For(dir, node).BPF; exists(pins) {
			t.Errorf("%s is still there", pins)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", dir, err)
	}
	if _, errOut, code := d.run("", "status"); code != 1 || !strings.Contains(errOut, "hypha demo up") {
		t.Errorf("status without a demo: %d %q", code, errOut)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// namespaces are those whose name begins so.
func namespaces(t *testing.T, prefix string) []string {
	t.Helper()
	names, err := netns.List(prefix)
	if err != nil {
		t.Fatal(err)
	}
	return names
}
