package k8s

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/hypha-net/hypha/internal/paths"
	"github.com/hypha-net/hypha/internal/testutil/kubeapi"
)

// watched counts the watches that are open, on their way to an API server.
type watched struct {
	next http.Handler
	mu   sync.Mutex
	open map[string]int // by path and selectors
}

func (w *watched) ServeHTTP(out http.ResponseWriter, req *http.Request) {
	q := req.URL.Query()
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

// testWatches is the list of what one agent watches: each once, and of pods and nodes this node's alone.
func testWatches(t *testing.T, srv *kubeapi.Server) {
	conf, err := clientcmd.BuildConfigFromFlags("", srv.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	to, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	if proxy.Transport, err = rest.TransportFor(conf); err != nil {
		t.Fatal(err)
	}
	proxy.FlushInterval = -1
	proxy.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	w := &watched{next: proxy, open: map[string]int{}}
	front := httptest.NewServer(w)
	defer front.Close()
	s, err := Open(t.Context(), Config{NodeName: "n8", ClusterName: "default", Server: front.URL, IPAM: IPAMKubernetes, Paths: paths.For(t.TempDir(), "n8"),
		Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.108")}, IPv4: true, QPS: 200}, Deps{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // it is what it was
	const ours = " !service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless"
	want := []string{"/api/v1/namespaces", "/api/v1/nodes metadata.name=n8", "/api/v1/pods spec.nodeName=n8", "/api/v1/services" + ours,
		"/apis/cilium.io/v2/ciliumcidrgroups", "/apis/cilium.io/v2/ciliumclusterwidenetworkpolicies", "/apis/cilium.io/v2/ciliumendpoints",
		"/apis/cilium.io/v2/ciliumidentities", "/apis/cilium.io/v2/ciliumnetworkpolicies", "/apis/cilium.io/v2/ciliumnodes",
		"/apis/discovery.k8s.io/v1/endpointslices" + ours, "/apis/networking.k8s.io/v1/networkpolicies"}
	kubeapi.Eventually(t, limit, "watches", func() error { return differ(want, w.list()) })
}
