package k8s

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	neturl "net/url"
	"slices"
	"sync"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/hypha-net/hypha/internal/testutil/kubeapi"
)

// watched counts the watches that are open, on their way to an API server, and the patches that went there.
type watched struct {
	next    http.Handler
	mu      sync.Mutex
	open    map[string]int // by path and selectors
	patches map[string]int // by path
}

func (w *watched) ServeHTTP(out http.ResponseWriter, req *http.Request) {
	q := req.URL.Query()
	if req.Method == http.MethodPatch {
		w.mu.Lock()
		w.patches[req.URL.Path]++
		w.mu.Unlock()
	}
	if q.Get("watch") == "" {
		w.next.ServeHTTP(out, req)
		return
	}
	what := req.URL.Path
	for _, s := range []string{"fieldSelector", "labelSelector"} {
		if v := q.Get(s); v != "" {
			what += " " + v
		}
	}
	w.count(what, 1)
	defer w.count(what, -1)
	w.next.ServeHTTP(out, req)
}

func (w *watched) count(what string, by int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open[what] += by; w.open[what] == 0 {
		delete(w.open, what)
	}
}

func (w *watched) list() (out []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for what, n := range w.open {
		for range n {
			out = append(out, what)
		}
	}
	slices.Sort(out)
	return out
}

func (w *watched) patched(path string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.patches[path]
}

// counted is a way to an API server on which it is counted what passes.
func counted(t *testing.T, srv *kubeapi.Server) (url string, w *watched) {
	t.Helper()
	conf, err := clientcmd.BuildConfigFromFlags("", srv.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	to, err := neturl.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	if proxy.Transport, err = rest.TransportFor(conf); err != nil {
		t.Fatal(err)
	}
	proxy.FlushInterval = -1
	proxy.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	w = &watched{next: proxy, open: map[string]int{}, patches: map[string]int{}}
	front := httptest.NewServer(w)
	t.Cleanup(front.Close)
	return front.URL, w
}

// testWatches is the list of what one agent watches: each once, and of pods and nodes this node's alone.
func testWatches(t *testing.T, srv *kubeapi.Server) {
	const ours = " !service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless"
	for _, sliced := range []bool{false, true} {
		addresses := "/apis/cilium.io/v2/ciliumendpoints"
		if sliced {
			addresses = "/apis/cilium.io/v2alpha1/ciliumendpointslices"
		}
		url, w := counted(t, srv)
		s := openWith(t, "", "n8", "192.0.2.108", func(c *Config) { c.Server, c.EndpointSlices = url, sliced })
		want := []string{"/api/v1/namespaces", "/api/v1/nodes metadata.name=n8", "/api/v1/pods spec.nodeName=n8", "/api/v1/services" + ours,
			"/apis/cilium.io/v2/ciliumcidrgroups", "/apis/cilium.io/v2/ciliumclusterwidenetworkpolicies", addresses,
			"/apis/cilium.io/v2/ciliumidentities", "/apis/cilium.io/v2/ciliumnetworkpolicies", "/apis/cilium.io/v2/ciliumnodes",
			"/apis/discovery.k8s.io/v1/endpointslices" + ours, "/apis/networking.k8s.io/v1/networkpolicies"}
		slices.Sort(want)
		kubeapi.Eventually(t, limit, "watches", func() error { return differ(want, w.list()) })
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
