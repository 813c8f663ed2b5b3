package healthcheck

import (
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"

	"github.com/hypha-net/hypha/internal/fault"
	"github.com/hypha-net/hypha/internal/model"
)

// Anybody who reaches the node can connect: nobody may hold on to more than this for longer than that.
const (
	maxConns  = 128 // at one address
	maxHeader = 8 << 10
	slow      = 5 * time.Second  // for a request, and for its answer
	idle      = 30 * time.Second // between two requests of one connection
)

// server answers at one port of several addresses.
type server struct {
	row    atomic.Pointer[model.HealthCheck]
	http   *http.Server
	failed *fault.Fault
	done   sync.WaitGroup

	mu sync.Mutex
	at map[netip.Addr]net.Listener
}

func newServer(failed *fault.Fault) *server {
	s := &server{failed: failed, at: map[netip.Addr]net.Listener{}}
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: slow, ReadTimeout: slow, WriteTimeout: slow, IdleTimeout: idle, MaxHeaderBytes: maxHeader,
		ErrorLog: log.New(io.Discard, "", 0)} // what clients do wrong is theirs to know
	return s
}

func (s *server) listens(a netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at[a] != nil
}

// serve answers those who come by a listener; when that fails, the address counts as not listened at.
func (s *server) serve(a netip.Addr, l net.Listener) {
	l = netutil.LimitListener(l, maxConns)
	s.mu.Lock()
	s.at[a] = l
	s.mu.Unlock()
	s.done.Go(func() {
		_ = s.http.Serve(l)
		_ = l.Close()
		s.mu.Lock()
		delete(s.at, a)
		s.mu.Unlock()
	})
}

// close ends listeners and connections, and waits for that.
func (s *server) close() {
	_ = s.http.Close()
	s.done.Wait()
}

// answer is the body, in kube-proxy's spelling.
type answer struct {
	Service struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	} `json:"service"`
	LocalEndpoints      int  `json:"localEndpoints"`
	ServiceProxyHealthy bool `json:"serviceProxyHealthy"` // who answers is well
}

// ServeHTTP answers any request.
func (s *server) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	row := s.row.Load()
	a := answer{LocalEndpoints: row.Local, ServiceProxyHealthy: true}
	a.Service.Namespace, a.Service.Name = row.Namespace, row.Name
	body, err := json.MarshalIndent(a, "", "\t")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(row.Local))
	if row.Local == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write(append(body, '\n'))
}
