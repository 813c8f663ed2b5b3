// Package workload is what runs inside the demo's and the tests' pods: an HTTP server that says who it is and who asks,
// and an echo service over TCP and UDP; and the matching one-shot clients, so that nothing has to be installed.
//
// It trusts nobody: requests are bounded in size and time, and the number of connections is limited.
package workload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Default ports.
const (
	HTTPPort = 80
	EchoPort = 7777
)

const (
	idleTimeout = 10 * time.Minute // of an echo connection
	maxEcho     = 1024             // echo connections at a time
	maxDatagram = 65535
)

// Config says who the workload is and where it serves.
type Config struct {
	Name string // of the pod
	Node string // it runs on
	HTTP int    // TCP port of the HTTP server, 0: none
	Echo int    // TCP and UDP port of the echo service, 0: none
}

// Server serves a pod's ports on all its addresses.
type Server struct {
	cfg   Config
	log   *slog.Logger
	http  net.Listener
	tcp   net.Listener
	udp   *net.UDPConn
	slots chan struct{}
}

// New opens the sockets, so that whoever started the workload knows from then on that it can be reached.
func New(cfg Config, log *slog.Logger) (*Server, error) {
	s := &Server{cfg: cfg, log: log, slots: make(chan struct{}, maxEcho)}
	var err error
	if cfg.HTTP != 0 {
		if s.http, err = net.Listen("tcp", port(cfg.HTTP)); err != nil {
			return nil, fmt.Errorf("serve HTTP: %w", err)
		}
	}
	if cfg.Echo != 0 {
		if s.tcp, err = net.Listen("tcp", port(cfg.Echo)); err == nil {
			s.udp, err = listenUDP(cfg.Echo)
		}
		if err != nil {
			s.close()
			return nil, fmt.Errorf("serve echo: %w", err)
		}
	}
	return s, nil
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	errs := make(chan error, 3)
	serve := func(what string, fn func() error) {
		wg.Go(func() {
			if err := fn(); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
				errs <- fmt.Errorf("serve %s: %w", what, err)
			}
		})
	}
	web := &http.Server{
		Handler:           http.HandlerFunc(s.greet),
		ReadHeaderTimeout: 5 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	if s.http != nil {
		serve("HTTP", func() error { return web.Serve(s.http) })
	}
	if s.tcp != nil {
		serve("TCP echo", func() error { return s.echoTCP(ctx, &wg) })
		serve("UDP echo", s.echoUDP)
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-errs:
	}
	s.close()
	_ = web.Close()
	wg.Wait()
	return err
}

// greet answers every path with who serves and who asks.
func (s *Server) greet(w http.ResponseWriter, r *http.Request) {
	s.log.Debug("request", "method", r.Method, "path", r.URL.Path, "from", r.RemoteAddr)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = fmt.Fprintf(w, "%s on %s: %s %q from %s\n", s.cfg.Name, s.cfg.Node, r.Method, r.URL.Path, r.RemoteAddr)
}

// echoTCP returns every connection's bytes. wg counts the connections too.
func (s *Server) echoTCP(ctx context.Context, wg *sync.WaitGroup) error {
	for {
		c, err := s.tcp.Accept()
		if err != nil {
			return err
		}
		select {
		case s.slots <- struct{}{}:
		default:
			_ = c.Close() // full
			continue
		}
		wg.Go(func() {
			defer func() { <-s.slots }()
			stop := context.AfterFunc(ctx, func() { _ = c.Close() })
			defer stop()
			defer func() { _ = c.Close() }()
			buf := make([]byte, 64<<10)
			for {
				_ = c.SetDeadline(time.Now().Add(idleTimeout))
				n, err := c.Read(buf)
				if n > 0 {
					if _, err := c.Write(buf[:n]); err != nil {
						return
					}
				}
				if err != nil {
					return
				}
			}
		})
	}
}

// echoUDP returns every datagram to where it came from, from the address it was sent to: a pod or machine with several
// addresses would else answer from another one.
func (s *Server) echoUDP() error {
	buf, oob := make([]byte, maxDatagram), make([]byte, 128)
	for {
		n, oobn, _, from, err := s.udp.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			continue // an ICMP error to an earlier answer
		}
		_, _, _ = s.udp.WriteMsgUDPAddrPort(buf[:n], replySource(oob[:oobn]), from)
	}
}

func (s *Server) close() {
	if s.http != nil {
		_ = s.http.Close()
	}
	if s.tcp != nil {
		_ = s.tcp.Close()
	}
	if s.udp != nil {
		_ = s.udp.Close()
	}
}

func port(n int) string { return ":" + strconv.Itoa(n) }
