// Package server answers the flow API (observer.Observer, peer.Peer and gRPC's health service) for one node, over
// gRPC, gRPC-Web and Connect on the same listener. A client that reads slowly waits alone: it is told how many events it
// missed, and nobody else notices.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/hypha-net/hypha/api/observer/observerpbconnect"
	"github.com/hypha-net/hypha/api/peer/peerpbconnect"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/observe"
)

// versionHeader tells clients what they talk to.
const versionHeader = "hubble-server-version"

// Limits of what a client may make the server hold.
const (
	maxRequest    = 1 << 20 // bytes
	maxStreams    = 128     // of one connection
	headerTimeout = 10 * time.Second
	shutdownGrace = 2 * time.Second
)

// Deps is what a Server needs.
type Deps struct {
	Observer *observe.Observer
	// Nodes are the members of the cluster, this one included, and a channel that is closed when they change.
	Nodes func() (nodes []model.Node, changed <-chan struct{})
	// TLS says whether the address that nodes publish (model.Node.FlowAddr) is served with TLS.
	TLS bool
	Log *slog.Logger
}

// Server answers the flow API.
type Server struct {
	obs   *observe.Observer
	nodes func() ([]model.Node, <-chan struct{})
	tls   bool
	log   *slog.Logger
}

// New makes a Server.
func New(d Deps) (*Server, error) {
	if d.Observer == nil || d.Nodes == nil {
		return nil, errors.New("new flow server: observer and nodes are needed")
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{obs: d.Observer, nodes: d.Nodes, tls: d.TLS, log: d.Log}, nil
}

// Handler serves all services.
func (s *Server) Handler() http.Handler {
	opt := connect.WithReadMaxBytes(maxRequest)
	mux := http.NewServeMux()
	mux.Handle(observerpbconnect.NewObserverHandler(&flows{s}, opt))
	mux.Handle(peerpbconnect.NewPeerHandler(&peers{s}, opt))
	registerHealth(mux, opt)
	version := s.obs.Config().Version
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(versionHeader, version)
		mux.ServeHTTP(w, r)
	})
}

// Serve answers on a listener until ctx ends, then returns nil. Without a TLS configuration the listener must be a unix
// socket or on the loopback device: what leaves the node is encrypted.
func (s *Server) Serve(ctx context.Context, l net.Listener, conf *tls.Config) error {
	if conf == nil && !local(l.Addr()) {
		return fmt.Errorf("serve flows on %s: TLS is needed off the node", l.Addr())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := &http.Server{
		Handler:           s.Handler(),
		BaseContext:       func(net.Listener) context.Context { return ctx }, // streams end with ctx
		ReadHeaderTimeout: headerTimeout,                                     // of the TLS handshake, too
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		Protocols:         new(http.Protocols),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: time.Minute, PingTimeout: 20 * time.Second},
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(true)
	srv.Protocols.SetUnencryptedHTTP2(conf == nil)
	done := make(chan error, 1)
	go func() {
		if conf != nil {
			srv.TLSConfig = conf.Clone()
			done <- srv.ServeTLS(l, "", "")
			return
		}
		done <- srv.Serve(l)
	}()
	select {
	case err := <-done:
		return fmt.Errorf("serve flows on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	grace, stop := context.WithTimeout(context.Background(), shutdownGrace)
	defer stop()
	if err := srv.Shutdown(grace); err != nil {
		_ = srv.Close() // whoever is still connected has been told
	}
	<-done
	return nil
}

func local(a net.Addr) bool {
	switch a := a.(type) {
	case *net.UnixAddr:
		return true
	case *net.TCPAddr:
		return a.IP.IsLoopback()
	}
	return false
}
