// Package internal_test holds the rules of who may import whom.
package internal_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/hypha-net/hypha/"

// imports maps each package of the module to what it imports itself (direct) or with everything below (deps).
func imports(t *testing.T, field string) map[string][]string {
	t.Helper()
	cmd := exec.Command("go", "list", "-f", `{{.ImportPath}}{{range .`+field+`}} {{.}}{{end}}`, "./...")
	cmd.Dir = ".."
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("list packages: %v\n%s", err, out)
	}
	all := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		all[strings.TrimPrefix(f[0], module)] = f[1:]
	}
	return all
}

// A rule: packages under any of `in` (but not under `except`) must not import what is under any of `deny`. A package of
// the standard library is denied alone: "net" does not mean "net/netip".
type rule struct {
	why              string
	in, except, deny []string
}

func under(path string, prefixes []string) bool {
	for _, p := range prefixes {
		if path == p || strings.HasPrefix(path, strings.TrimSuffix(p, "/")+"/") {
			return true
		}
	}
	return false
}

func denied(imp string, deny []string) bool {
	if first, _, _ := strings.Cut(imp, "/"); !strings.Contains(first, ".") {
		return slices.Contains(deny, imp)
	}
	return under(strings.TrimPrefix(imp, module), deny)
}

func TestDenied(t *testing.T) {
	for imp, want := range map[string]bool{"net": true, "net/netip": false, "go.etcd.io/etcd/client/v3": true, module + "internal/app": true,
		module + "internal/apple": false, "example.org/net": false} {
		if got := denied(imp, []string{"net", "go.etcd.io", "internal/app"}); got != want {
			t.Errorf("%s denied: %v", imp, got)
		}
	}
}

func check(t *testing.T, pkgs map[string][]string, rules []rule) {
	t.Helper()
	for _, r := range rules {
		for pkg, imps := range pkgs {
			if !under(pkg, r.in) || under(pkg, r.except) {
				continue
			}
			for _, imp := range imps {
				if denied(imp, r.deny) {
					t.Errorf("%s imports %s: %s", pkg, imp, r.why)
				}
			}
		}
	}
}

func TestLayers(t *testing.T) {
	check(t, imports(t, "Imports"), []rule{
		{why: "only the datapath talks BPF", in: []string{"cmd", "internal", "api"},
			except: []string{"internal/datapath", "internal/runtime", "internal/testutil"}, deny: []string{"github.com/cilium/ebpf", "bpf"}},
		{why: "control is pure", in: []string{"internal/control"},
			deny: []string{"internal/source", "internal/datapath", "internal/endpoint", "internal/observe", "internal/app", "go.etcd.io", "os", "net", "net/http"}},
		{why: "siblings meet in tables", in: []string{"internal/source"}, deny: []string{"internal/datapath", "internal/endpoint", "internal/observe", "internal/app"}},
		{why: "siblings meet in tables", in: []string{"internal/datapath"},
			deny: []string{"internal/source/kvstore", "internal/control", "internal/endpoint", "internal/observe", "internal/app"}},
		{why: "siblings meet in tables", in: []string{"internal/observe"},
			deny: []string{"internal/source", "internal/datapath", "internal/endpoint", "internal/control", "internal/app"}},
		{why: "values know nobody", in: []string{"internal/model"}, deny: []string{"internal", "api"}},
		{why: "only the wiring sees everything", in: []string{"internal"}, except: []string{"internal/app"}, deny: []string{"internal/app"}},
		{why: "etcd is the kvstore source's", in: []string{"cmd", "internal"}, except: []string{"internal/source/kvstore"}, deny: []string{"go.etcd.io"}},
		// install and cluster are the command line's: a person with a kubeconfig asks the API server, not an agent.
		{why: "only who follows or installs a cluster talks to its API server", in: []string{"cmd", "internal", "bpf", "api"},
			except: []string{"internal/source/k8s", "internal/operator", "internal/install", "internal/cluster", "internal/connectivity/kube", "internal/testutil"},
			deny:   []string{"k8s.io/client-go", "k8s.io/cli-runtime", "sigs.k8s.io/controller-runtime", "helm.sh"}},
		{why: "what an agent knows it knows in rows, not in the API server's objects", in: []string{"internal"},
			except: []string{"internal/source/k8s", "internal/operator", "internal/install", "internal/cluster", "internal/connectivity/kube", "internal/testutil"}, deny: []string{"k8s.io/api", "api/k8s"}},
	})
}

func TestSmallBinaries(t *testing.T) {
	check(t, imports(t, "Deps"), []rule{
		{why: "the CNI plugin starts in milliseconds", in: []string{"cmd/hypha-cni"},
			deny: []string{"github.com/cilium/ebpf", "go.etcd.io", "k8s.io", "google.golang.org/grpc", "internal/datapath", "internal/app"}},
		{why: "the command line starts in milliseconds", in: []string{"cmd/hypha"}, deny: []string{"k8s.io/client-go", "helm.sh", "internal/install", "internal/cluster", "internal/connectivity/kube"}},
		{why: "the agent installs nothing", in: []string{"cmd/hypha-agent"}, deny: []string{"helm.sh", "internal/install", "internal/cluster"}},
	})
}

// A judge that shares code with what it judges shares its faults.
func TestEvaluatorIsIndependent(t *testing.T) {
	pkgs := imports(t, "Deps")
	check(t, pkgs, []rule{
		{why: "the evaluator knows rules and labels, nothing of who enforces them", in: []string{"internal/control/policy/oracle"},
			deny: []string{"internal/control", "internal/datapath", "internal/app", "internal/endpoint", "bpf"}},
	})
	if len(pkgs["internal/control/policy/oracle"]) == 0 {
		t.Error("there is no evaluator to check")
	}
}

// Every package says what it is for.
func TestPackageComments(t *testing.T) {
	cmd := exec.Command("go", "list", "-f", `{{if and (not .Doc) .GoFiles}}{{.ImportPath}}{{end}}`, "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range strings.FieldsSeq(string(out)) {
		if strings.HasSuffix(pkg, "connect") || strings.Contains(pkg, "/api/") {
			continue // generated
		}
		t.Errorf("%s has no package comment", pkg)
	}
}
