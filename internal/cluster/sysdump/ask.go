package sysdump

import (
	"context"
	"fmt"
	"io"
	"strconv"
)

// question is a command of an agent's command line, and the file for its answer.
type question struct {
	file string
	slow bool // left out of a quick dump
	args []string
}

// questions are what every agent is asked.
func questions(flows int) []question {
	q := func(file string, args ...string) question { return question{file: file, args: args} }
	slow := func(q question) question { q.slow = true; return q }
	return []question{
		q("version.txt", "version"),
		q("status.txt", "status", "--verbose"),
		q("status.json", "status", "-o", "json"),
		q("doctor.txt", "doctor"),
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
		out = append(out, task{fmt.Sprintf("`%s` of %s", q.args, name), func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			return a.write(func(w io.Writer) error { return run(ctx, q.args, w) }, "agents", name, q.file)
		}})
	}
	return out
}
