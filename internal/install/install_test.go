package install

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/common"
	kubefake "helm.sh/helm/v4/pkg/kube/fake"
	releasei "helm.sh/helm/v4/pkg/release"
	"helm.sh/helm/v4/pkg/storage"
	"helm.sh/helm/v4/pkg/storage/driver"
	appsv1 "k8s.io/api/apps/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
)

// installer keeps its releases in memory and its objects nowhere.
func installer() *Installer {
	cfg := action.NewConfiguration()
	cfg.Releases = storage.Init(driver.NewMemory())
	cfg.KubeClient = &kubefake.PrintingKubeClient{Out: io.Discard, LogOutput: io.Discard}
	cfg.Capabilities = common.DefaultCapabilities.Copy()
	cfg.Capabilities.KubeVersion = common.KubeVersion{Version: "v1.36.3", Major: "1", Minor: "36"}
	return New(cfg, Namespace)
}

func TestLife(t *testing.T) {
	i := installer()
	if _, err := i.Upgrade(t.Context(), Options{}); !errors.Is(err, ErrNone) {
		t.Errorf("upgrade of nothing: %v", err)
	}
	if err := i.Uninstall(t.Context(), Options{}, false); !errors.Is(err, ErrNone) {
		t.Errorf("uninstall of nothing: %v", err)
	}
	r, err := i.Install(t.Context(), Options{Values: map[string]any{"debug": map[string]any{"enabled": true}}})
	if err != nil {
		t.Fatal(err)
	}
	if r.Name != "cilium" || r.Namespace != "kube-system" || !strings.Contains(r.Manifest, `debug: "true"`) {
		t.Errorf("release %s in %s", r.Name, r.Namespace)
	}
	if r, err = i.Upgrade(t.Context(), Options{Reuse: true, Values: map[string]any{"MTU": 1400}}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(r.Manifest, `debug: "true"`) || !strings.Contains(r.Manifest, `mtu: "1400"`) {
		t.Error("an upgrade forgets values of the release, or its own")
	}
	if r, err = i.Upgrade(t.Context(), Options{}); err != nil || strings.Contains(r.Manifest, `debug: "true"`) {
		t.Errorf("an upgrade that forgets: %v", err)
	}
	if err := i.Uninstall(t.Context(), Options{}, false); err != nil {
		t.Fatal(err)
	}
	if _, err := i.release(); !errors.Is(err, ErrNone) {
		t.Errorf("after uninstall: %v", err)
	}
}

// Before the release goes, its agents are told to take the CNI configuration away.
func TestUninstallTakesConfigurationAway(t *testing.T) {
	for name, tc := range map[string]struct {
		values    map[string]any
		keep      bool
		revisions int
	}{
		"told":   {revisions: 2},
		"kept":   {keep: true, revisions: 1},
		"always": {values: map[string]any{"cni": map[string]any{"uninstall": true}, "rollOutCiliumPods": true}, revisions: 1},
		// Its agents may have started before somebody chose that.
		"unheard":   {values: map[string]any{"cni": map[string]any{"uninstall": true}}, revisions: 2},
		"no plugin": {values: map[string]any{"cni": map[string]any{"install": false}}, revisions: 1},
	} {
		t.Run(name, func(t *testing.T) {
			i := installer()
			if _, err := i.Install(t.Context(), Options{Values: tc.values}); err != nil {
				t.Fatal(err)
			}
			watched := &releases{Driver: i.cfg.Releases.Driver}
			i.cfg.Releases = storage.Init(watched)
			if err := i.Uninstall(t.Context(), Options{}, tc.keep); err != nil {
				t.Fatal(err)
			}
			if got := 1 + watched.created; got != tc.revisions {
				t.Errorf("%d revisions, want %d", got, tc.revisions)
			}
		})
	}
}

// releases counts the revisions that are made.
type releases struct {
	driver.Driver
	created int
}

func TestRefusedValue(t *testing.T) {
	_, err := installer().Install(t.Context(), Options{Values: map[string]any{"encryption": map[string]any{"enabled": true}}})
	if err == nil || !strings.Contains(err.Error(), "encryption between nodes is not supported yet") {
		t.Errorf("got %v", err)
	}
}

func TestDetect(t *testing.T) {
	proxy := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "kube-proxy", Namespace: "kube-system"}}
	port := int32(6443)
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes", Namespace: "default", Labels: map[string]string{"kubernetes.io/service-name": "kubernetes"}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.7"}}}, Ports: []discoveryv1.EndpointPort{{Port: &port}}}
	for name, tc := range map[string]struct {
		objects []runtime.Object
		server  string
		values  map[string]any
		want    string
	}{
		"kube-proxy":   {objects: []runtime.Object{proxy}, server: "https://192.0.2.1:6443"},
		"none":         {server: "https://192.0.2.1:6443", want: "k8sServiceHost=192.0.2.1 k8sServicePort=6443"},
		"name":         {server: "https://api.example", want: "k8sServiceHost=api.example k8sServicePort=443"},
		"IPv6":         {server: "https://[2001:db8::1]:6443", want: "k8sServiceHost=2001:db8::1 k8sServicePort=6443"},
		"loopback":     {objects: []runtime.Object{slice}, server: "https://127.0.0.1:40001", want: "k8sServiceHost=192.0.2.7 k8sServicePort=6443"},
		"no endpoint":  {server: "https://localhost:40001", want: "error: the API server names no endpoint"},
		"said":         {server: "https://192.0.2.1:6443", values: map[string]any{"k8sServiceHost": "x"}},
		"said to stay": {server: "https://192.0.2.1:6443", values: map[string]any{"kubeProxyReplacement": false}},
	} {
		values := map[string]any{}
		maps.Copy(values, tc.values)
		got, err := Detect(t.Context(), fake.NewClientset(tc.objects...), tc.server, values)
		if err != nil {
			got = "error: " + err.Error()
		}
		if !strings.Contains(got, tc.want) || tc.want == "" && got != "" {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
		if added := len(values) - len(tc.values); (added != 0) != (err == nil && tc.want != "") {
			t.Errorf("%s: values %v", name, values)
		}
	}
}

func TestDryRunAsksNobody(t *testing.T) {
	t.Setenv("KUBECONFIG", "/nowhere")
	cmd := install()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"--dry-run", "--set", "kubeProxyReplacement=true,k8sServiceHost=192.0.2.1,k8sServicePort=6443", "-n", "net"})
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"kind: DaemonSet", "namespace: net", `value: "192.0.2.1"`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in what is printed", want)
		}
	}
}

func TestOtherVersion(t *testing.T) {
	cmd := install()
	cmd.SetArgs([]string{"--dry-run", "--version", "9.9.9"})
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "use hypha of version 9.9.9") {
		t.Errorf("got %v", err)
	}
}

func (r *releases) Create(key string, rel releasei.Releaser) error {
	r.created++
	return r.Driver.Create(key, rel)
}
