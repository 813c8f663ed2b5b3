package sysdump

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"

	remote "k8s.io/client-go/util/exec"
)

// question is a command of an agent's command line, and the file for its answer.
type question struct {
	file string
	slow bool // left out of a quick dump
	says bool // its exit code 1 says that not all is well, and no more
	args []string
}

// questions are what every agent is asked.
func questions(flows int) []question {
	q := func(file string, args ...string) question { return question{file: file, args: args} }
	slow := func(q question) question { q.slow = true; return q }
	says := func(q question) question { q.says = true; return q }
	return []question{
		q("version.txt", "version"),
		says(q("status.txt", "status", "--verbose")),
		says(q("status.json", "status", "-o", "json")),
		says(q("doctor.txt", "doctor")),
		q("endpoint-list.txt", "endpoint", "list"),
		q("endpoint-list.json", "endpoint", "list", "-o", "json"),
		q("identity-list.json", "identity", "list", "-o", "json"),
		q("ip-list.json", "ip", "list", "-o", "json"),
		q("node-list.json", "node", "list", "-o", "json"),
		q("policy-get.json", "policy", "get", "-o", "json"),
		q("policy-selectors.json", "policy", "selectors", "-o", "json"),
		q("service-list.txt", "service", "list"),
		q("service-list.json", "service", "list", "-o", "json"),
		q("prefilter-list.txt", "prefilter", "list"),
		q("config-view.json", "config", "view", "-o", "json"),
		q("metrics-list.txt", "metrics", "list"),
		q("map-list.txt", "map", "list"),
		q("bpf-metrics.txt", "bpf", "metrics", "list"),
		q("bpf-device.txt", "bpf", "device", "list"),
		q("bpf-endpoint.txt", "bpf", "endpoint", "list"),
		q("bpf-class.txt", "bpf", "class", "list"),
		q("bpf-policy.txt", "bpf", "policy", "list"),
		q("bpf-lb.txt", "bpf", "lb", "list"),
		slow(q("bpf-ipcache.txt", "bpf", "ipcache", "list")),
		slow(q("bpf-ct.txt", "bpf", "ct", "list")),
		slow(q("bpf-nat.txt", "bpf", "nat", "list")),
		slow(q("debuginfo.md", "debuginfo")),
		slow(q("hubble-flows.json", "observe", "--last", strconv.Itoa(flows), "-o", "jsonpb")),
	}
}

// asker runs a command of an agent's command line.
type asker func(ctx context.Context, args []string, out io.Writer) error

// ask makes the tasks of asking an agent; name is what it is called in the archive.
func ask(a *archive, name string, run asker, o *options) (out []task) {
	for _, q := range questions(o.flows) {
		if q.slow && o.quick {
			continue
		}
		out = append(out, task{fmt.Sprintf("`%s` of %s", strings.Join(q.args, " "), name), func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			return a.write(func(w io.Writer) error {
				out := &counter{w: w}
				err := run(ctx, q.args, out)
				if q.says && out.n > 0 && exitCode(err) == 1 {
					return nil
				}
				return err
			}, "agents", name, q.file)
		}})
	}
	return out
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += n
	return n, err
}

// exitCode is that of a command that ran, here or in a pod, and failed; 0: it did not fail, or did not run.
func exitCode(err error) int {
	var here *exec.ExitError
	var there remote.CodeExitError
	switch {
	case errors.As(err, &here):
		return here.ExitCode()
	case errors.As(err, &there):
		return there.Code
	}
	return 0
}
