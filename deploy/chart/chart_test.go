package chart

import (
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/common"
	chartv2 "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	release "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/strvals"
	"sigs.k8s.io/yaml"

	"github.com/hypha-net/hypha/internal/config"
)

// kubernetes is whom the chart is rendered for.
var kubernetes = &common.KubeVersion{Version: "v1.36.3", Major: "1", Minor: "36"}

var update = flag.Bool("update", false, "write what the chart renders into testdata")

func load(t *testing.T) *chartv2.Chart {
	t.Helper()
	c, err := loader.LoadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// render is a dry run as `helm install cilium . -n kube-system --set ...`.
func render(t *testing.T, sets ...string) (*release.Release, error) {
	t.Helper()
	values := map[string]any{}
	for _, s := range sets {
		if err := strvals.ParseInto(s, values); err != nil {
			t.Fatal(err)
		}
	}
	in := action.NewInstall(action.NewConfiguration())
	in.ReleaseName, in.Namespace, in.DryRunStrategy, in.KubeVersion = "cilium", "kube-system", action.DryRunClient, kubernetes
	r, err := in.RunWithContext(t.Context(), load(t), values)
	if err != nil {
		return nil, err
	}
	return r.(*release.Release), nil
}

// variants are installs that people make.
var variants = map[string][]string{
	"default": nil,
	"noproxy": {"kubeProxyReplacement=true", "k8sServiceHost=192.0.2.1", "k8sServicePort=6443"},
	"native":  {"routingMode=native", "autoDirectNodeRoutes=true", "ipv4NativeRoutingCIDR=10.0.0.0/8", "ipam.mode=kubernetes", "ipv6.enabled=true", "ipv6NativeRoutingCIDR=fd00::/104", "devices={eth0,eth1}", "MTU=1400"},
	"slices":  {"ciliumEndpointSlice.enabled=true"},
	"pools": {"ipam.mode=multi-pool", "ipam.operator.autoCreateCiliumPodIPPools.default.ipv4.cidrs={10.0.0.0/16,10.9.0.0/16}",
		"ipam.operator.autoCreateCiliumPodIPPools.default.ipv4.maskSize=27", "ipam.operator.autoCreateCiliumPodIPPools.blue.ipv4.cidrs=10.8.0.0/16",
		"ipam.operator.autoCreateCiliumPodIPPools.blue.ipv4.maskSize=28", "ipam.multiPoolPreAllocation=default=8\\,blue=2"},
	"monitored": {"prometheus.enabled=true", "prometheus.serviceMonitor.enabled=true", "operator.prometheus.metricsService=true", "operator.podDisruptionBudget.enabled=true", "rollOutCiliumPods=true", "commonLabels.team=net", "imagePullSecrets[0].name=reg", "image.override=reg.example/agent:1", "extraArgs={--debug}", "extraConfig.mtu=1300", "extraHostPathMounts[0].name=x", "extraHostPathMounts[0].hostPath=/x", "extraHostPathMounts[0].mountPath=/x"},
}

func TestGolden(t *testing.T) {
	for name, sets := range variants {
		t.Run(name, func(t *testing.T) {
			r, err := render(t, sets...)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name+".yaml", r.Manifest+"--- # NOTES\n"+r.Info.Notes)
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("not as %s (go test -update writes it anew):\n%s", path, d)
	}
}

// objects are what a release makes.
func objects(t *testing.T, r *release.Release) []map[string]any {
	t.Helper()
	var out []map[string]any
	for doc := range strings.SplitSeq(r.Manifest, "\n---") {
		var o map[string]any
		if err := yaml.UnmarshalStrict([]byte(doc), &o); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		if len(o) > 0 {
			out = append(out, o)
		}
	}
	return out
}

func find(t *testing.T, r *release.Release, kind, name string) map[string]any {
	t.Helper()
	for _, o := range objects(t, r) {
		if o["kind"] == kind && o["metadata"].(map[string]any)["name"] == name {
			return o
		}
	}
	t.Fatalf("there is no %s %s", kind, name)
	return nil
}

// TestRights is the golden file of who may do what, a line for each right.
func TestRights(t *testing.T) {
	r, err := render(t)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, o := range objects(t, r) {
		kind, _ := o["kind"].(string)
		if kind != "ClusterRole" && kind != "Role" {
			continue
		}
		name := o["metadata"].(map[string]any)["name"]
		for _, rule := range o["rules"].([]any) {
			m := rule.(map[string]any)
			only := ""
			if n, ok := m["resourceNames"]; ok {
				only = fmt.Sprint(" named ", n)
			}
			for _, g := range m["apiGroups"].([]any) {
				for _, res := range m["resources"].([]any) {
					for _, verb := range m["verbs"].([]any) {
						if g == "*" || res == "*" || verb == "*" || res == "secrets" {
							t.Errorf("%s %s may %s %s of %s", kind, name, verb, res, g)
						}
						lines = append(lines, fmt.Sprintf("%s %s: %s %s/%s%s", kind, name, verb, g, res, only))
					}
				}
			}
		}
	}
	slices.Sort(lines)
	golden(t, "rights.txt", strings.Join(lines, "\n")+"\n")
}

func TestLint(t *testing.T) {
	for name, sets := range variants {
		values := map[string]any{}
		for _, s := range sets {
			if err := strvals.ParseInto(s, values); err != nil {
				t.Fatal(err)
			}
		}
		for _, m := range lint.RunAll(".", values, "kube-system", lint.WithKubeVersion(kubernetes)).Messages {
			if !strings.Contains(m.Error(), "icon is recommended") {
				t.Errorf("%s: %v", name, m)
			}
		}
	}
}

// The options in the ConfigMap have to be the agent's, with values that it takes.
func TestOptions(t *testing.T) {
	later := []string{`"identity-allocation-mode"`, `"ipam"`}
	for name, sets := range variants {
		r, err := render(t, append(slices.Clone(sets), "kubeProxyReplacementHealthzBindAddr=0.0.0.0:10256", "cni.logFile=/var/log/cni.log", "bpf.ctTcpMax=100000",
			"bpf.natMax=100000", "bpf.policyMapMax=20000", "maglev.hashSeed=JLfvgnHc2kaSUFaI", "labels=k8s:app k8s:io", "tunnelPort=8473", "pprof.enabled=true",
			"hubble.eventBufferCapacity=8191")...)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		for key, v := range find(t, r, "ConfigMap", "cilium-config")["data"].(map[string]any) {
			if err := os.WriteFile(filepath.Join(dir, key), []byte(v.(string)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		l, err := config.LoadAgent([]string{"--config-dir", dir, "--node-name=n1"}, func() []string { return nil })
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, w := range l.Warnings {
			if !slices.ContainsFunc(later, func(s string) bool { return strings.Contains(w, "option "+s) }) {
				t.Errorf("%s: %s", name, w)
			}
		}
		if l.Agent.CTMax != 100000 || l.Agent.TunnelPort != 8473 || l.Agent.HubbleCapacity != 8191 || l.Agent.CNIConf != "/host/etc/cni/net.d/05-cilium.conflist" {
			t.Errorf("%s: %+v", name, l.Agent)
		}
	}
}

// rule is a line of files/known.yaml.
type rule struct {
	Type   string `json:"type"`
	Only   []any  `json:"only"`
	Why    string `json:"why"`
	Switch string `json:"switch"`
	Idle   string `json:"idle"`
}

func known(t *testing.T) map[string]rule {
	t.Helper()
	b, err := os.ReadFile("files/known.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var raw map[string]any
	if err := yaml.UnmarshalStrict(b, &raw); err != nil {
		t.Fatal(err)
	}
	out := map[string]rule{}
	for name, v := range raw {
		if s, ok := v.(string); ok {
			out[name] = rule{Type: s}
			continue
		}
		b, err := yaml.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var r rule
		if err := yaml.UnmarshalStrict(b, &r); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out[name] = r
	}
	return out
}

func TestTable(t *testing.T) {
	table := known(t)
	types := []string{"bool", "int", "number", "string", "list", "object", "any"}
	for name, r := range table {
		switch {
		case r.Idle != "":
			if r.Type != "" || r.Why != "" || r.Only != nil || r.Switch != "" {
				t.Errorf("%s: has no effect, and more", name)
			}
		case r.Switch != "":
			if r.Why == "" || r.Type != "" || r.Only != nil {
				t.Errorf("%s: a part needs its reason, and no type", name)
			}
		case !slices.Contains(types, r.Type):
			t.Errorf("%s: %q is no type", name, r.Type)
		case (r.Only == nil) != (r.Why == ""):
			t.Errorf("%s: a choice needs its reason", name)
		}
	}
	// Each value of ours is in the table, and what the table says is taken is in values.yaml.
	var walk func(path string, v any)
	seen := map[string]bool{}
	walk = func(path string, v any) {
		deeper := false
		for name := range table {
			deeper = deeper || strings.HasPrefix(name, path+".")
		}
		if r, ok := table[path]; ok && !deeper && (r.Type != "" || r.Idle != "") {
			seen[path] = true
			return
		}
		m, ok := v.(map[string]any)
		if !ok {
			if parent := path[:strings.LastIndex(path, ".")]; table[parent].Switch == "" {
				t.Errorf("values.yaml has %s, which is not in the table", path)
			}
			return
		}
		for key, below := range m {
			walk(strings.TrimPrefix(path+"."+key, "."), below)
		}
	}
	for key, v := range load(t).Values {
		walk(key, v)
	}
	for name, r := range table {
		if r.Type != "" && r.Only == nil && !seen[name] && name != "global" {
			t.Errorf("the table says that %s is taken, but values.yaml does not have it", name)
		}
	}
}

func TestRefused(t *testing.T) {
	for set, want := range map[string]string{
		"encryption.enabled=true":                   "encryption.enabled=true: encryption between nodes is not supported yet",
		"tunnelProtocol=geneve":                     "tunnelProtocol=geneve: the overlay is VXLAN",
		"ipam.mode=eni":                             "ipam.mode=eni: pod addresses come from",
		"hubble.relay.enabled=true":                 "hubble.relay.enabled=true: Hubble Relay is not supported yet",
		"authentication.mutual.spire.enabled=true":  "mutual authentication of workloads is not supported yet",
		"k8sServiceHostRef.name=x":                  "k8sServiceHostRef.name: the address of the API server cannot come from a ConfigMap yet",
		"cluster.id=3":                              "cluster.id=3: several clusters as one are not supported yet",
		"operator.replicas=two":                     "operator.replicas=two is no int",
		"tolerations=x":                             "tolerations=x is no list",
		"ipv4.enabled=maybe":                        "ipv4.enabled=maybe is no bool",
		"ipv4.enabled=false":                        "ipv4.enabled and ipv6.enabled: one of them must be true",
		"socketLB.enabled=true":                     "services at sockets go with kubeProxyReplacement=true",
		"cluster.name=Default":                      "cluster.name=Default: want up to 32",
		"k8sServicePort=6443":                       "k8sServicePort: it goes with k8sServiceHost",
		"kubeProxyReplacement=strict":               "kubeProxyReplacement=strict is no bool",
		"enableCiliumEndpointSlice=true":            "it is named ciliumEndpointSlice.enabled",
		"l7Proxy=true":                              "l7Proxy=true: L7 policies are not supported yet",
		"hubble.metrics.enabled={dns,drop}":         "metrics made of flows are not chosen one by one yet",
		"cni.chainingMode=aws-cni":                  "sharing workloads with another CNI plugin is not supported yet",
		"loadBalancer.acceleration=native":          "services are not accelerated by XDP yet",
		"clustermesh.config.enabled=true":           "several clusters as one are not supported yet",
		"ipam.operator.clusterPoolIPv4MaskSize=/24": "is no int",
	} {
		if _, err := render(t, set); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", set, err, want)
		}
	}
}

func TestUnknownWarns(t *testing.T) {
	r, err := render(t, "kubeProxyReplacment=true", "bpf.masqerade=true", "bpf.masquerade=true", "hubble.ui.replicas=2", "affinity.anything=1",
		"kubeProxyReplacement=true", "healthChecking=true", "operator.prometheus.enabled=true")
	if err != nil {
		t.Fatal(err)
	}
	_, got, _ := strings.Cut(r.Info.Notes, "Values without effect:\n")
	want := `  - bpf.masqerade: the chart knows no value of this name
  - bpf.masquerade has no effect: masquerading is always done by eBPF
  - healthChecking has no effect: nodes do not probe each other yet
  - kubeProxyReplacment: the chart knows no value of this name`
	if d := cmp.Diff(want, strings.TrimSpace("\n"+got), cmp.Transformer("trim", strings.TrimSpace)); d != "" {
		t.Error(d)
	}
	if r, err = render(t); err != nil || strings.Contains(r.Info.Notes, "without effect") {
		t.Errorf("the chart's own values: %v, %s", err, r.Info.Notes)
	}
}

// Numbers from a file are floating point, and booleans may be text.
func TestSpellings(t *testing.T) {
	in := action.NewInstall(action.NewConfiguration())
	in.ReleaseName, in.Namespace, in.DryRunStrategy, in.KubeVersion = "cilium", "kube-system", action.DryRunClient, kubernetes
	r, err := in.RunWithContext(t.Context(), load(t), map[string]any{"kubeProxyReplacement": "true", "bpf": map[string]any{"lbMapMax": 1000000.0},
		"k8sServiceHost": "api.example", "k8sServicePort": 6443.0, "operator": map[string]any{"replicas": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	data := find(t, r.(*release.Release), "ConfigMap", "cilium-config")["data"].(map[string]any)
	if data["bpf-lb-map-max"] != "1000000" || data["kube-proxy-replacement"] != "true" {
		t.Errorf("options: %v", data)
	}
	if m := r.(*release.Release).Manifest; !strings.Contains(m, `value: "6443"`) || !strings.Contains(m, "replicas: 1\n") {
		t.Error("port or replicas are not as given")
	}
}

// What is embedded is what lies here.
func TestEmbedded(t *testing.T) {
	embedded := map[string]bool{}
	err := fs.WalkDir(Files, ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			embedded[path] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	loaded := map[string]bool{}
	for _, f := range load(t).Raw {
		loaded[f.Name] = true
	}
	delete(loaded, ".helmignore")
	if d := cmp.Diff(slices.Sorted(maps.Keys(loaded)), slices.Sorted(maps.Keys(embedded))); d != "" {
		t.Error(d)
	}
}
