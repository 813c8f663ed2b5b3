// Command scale measures how Hypha's costs grow: rows 8, 9 and 14 of the performance suite (policy in the datapath, policy and
// identities in the agent, footprint), and one agent in a large cluster that a load generator writes into a real etcd, or a
// real API server. It writes tables to docs/performance.md. It asserts nothing: read the tables.
//
//	go run ./test/bench/scale
//	go run ./test/bench/scale -before /tmp/bin -parts node    # with the binaries of an earlier build as a second arm
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/etcdmain"

	"github.com/hypha-net/hypha/internal/lab"
	"github.com/hypha-net/hypha/test/bench/page"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "etcd" {
		etcdmain.Main(os.Args[1:])
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are what to measure and how long.
type options struct {
	bins   []build // the last one is the one under test
	rounds int     // of programs
	repeat int     // packets of a round
	idle   time.Duration
	churn  time.Duration
	attach int // attachments to measure
	apply  int // policies to measure
	nodes  int // of the large cluster
	peers  int // identities of the large cluster
	kube   fleet
	prof   string
}

// build is a directory of Hypha's binaries.
type build struct {
	name string
	lab.Binaries
}

// parts are what can be measured, in order.
var parts = []struct {
	name  string
	about string
	run   func(context.Context, options) (string, error)
}{
	{"program", "policy in the datapath", programs},
	{"engine", "policy in the agent's engine", engine},
	{"node", "one node: 100 workloads, 250 policies, 3000 identities", oneNode},
	{"crowd", "one node of a large cluster", crowd},
	{"kube", "one node of a large cluster on Kubernetes", kube},
}

func bench(ctx context.Context) error {
	var o options
	flag.IntVar(&o.rounds, "rounds", 101, "rounds of the datapath's programs")
	flag.IntVar(&o.repeat, "repeat", 5000, "packets of each round and arm")
	flag.DurationVar(&o.idle, "idle", 2*time.Minute, "how long the idle agent is watched")
	flag.DurationVar(&o.churn, "churn", time.Minute, "how long a large cluster changes")
	flag.IntVar(&o.attach, "attach", 120, "attachments to measure")
	flag.IntVar(&o.apply, "apply", 100, "policy changes to measure")
	flag.IntVar(&o.nodes, "nodes", 1000, "nodes of the large cluster")
	flag.IntVar(&o.peers, "identities", 30000, "identities of the large cluster")
	flag.IntVar(&o.kube.nodes, "kube-nodes", 1000, "nodes of the large cluster on Kubernetes")
	flag.IntVar(&o.kube.pods, "kube-pods", 30000, "pods of its other nodes")
	flag.IntVar(&o.kube.identities, "kube-identities", 6000, "identities of these pods, ten in each namespace")
	flag.IntVar(&o.kube.policies, "kube-policies", 30000, "policies, as many in each namespace")
	flag.IntVar(&o.kube.local, "kube-local", 110, "pods of the node itself")
	flag.IntVar(&o.kube.changes, "kube-changes", 120, "policies that come and go while their latency is measured")
	flag.StringVar(&o.prof, "profile", "", "directory for the agents' CPU profiles; empty: none")
	bin := flag.String("bin", "bin", "directory of Hypha's binaries")
	before := flag.String("before", "", "directory of an earlier build's binaries, measured beside them; empty: none")
	only := flag.String("parts", "", "parts to run, comma separated (default: all)")
	mark := flag.String("mark", "bench-scale", "name of these markers")
	out := flag.String("out", "docs/performance.md", "document to write the tables into, between its markers; empty: none")
	flag.Parse()
	if os.Geteuid() != 0 {
		return errors.New("needs root: makes network namespaces")
	}
	for _, b := range []struct{ name, dir string }{{"before", *before}, {"now", *bin}} {
		if b.dir == "" {
			continue
		}
		dir, err := filepath.Abs(b.dir) // agents start with a working directory of their own
		if err != nil {
			return err
		}
		found, err := lab.FindBinaries(dir)
		if err != nil {
			return err
		}
		o.bins = append(o.bins, build{b.name, found})
	}
	if err := cluster.Sweep(); err != nil {
		return err
	}
	chosen := strings.Split(*only, ",")
	var doc strings.Builder
	fmt.Fprintf(&doc, "%s\n\nCommand: `go run ./test/bench/scale%s`\n\n", page.Machine(), page.Given(flag.CommandLine, "out", "mark", "bin", "before", "profile"))
	for _, p := range parts {
		if *only != "" && !slices.Contains(chosen, p.name) {
			continue
		}
		_, _ = fmt.Fprintln(os.Stderr, p.about)
		text, err := p.run(ctx, o)
		if err != nil {
			return fmt.Errorf("%s: %w", p.about, err)
		}
		fmt.Fprintf(&doc, "### %s\n\n%s\n", strings.ToUpper(p.about[:1])+p.about[1:], text)
	}
	fmt.Print(doc.String())
	if *out == "" {
		return nil
	}
	return page.Replace(*out, *mark, doc.String())
}
