package kvstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/hypha-net/hypha/internal/fault"
	"github.com/hypha-net/hypha/internal/source/file"
)

// server is an embedded etcd: one member, no peers.
type server struct {
	cfg    Config
	log    *slog.Logger
	socket string   // for this process
	urls   []string // for people
	fatal  fatal
	// unstarted is why it could not start yet.
	unstarted *fault.Fault

	etcd  *embed.Etcd // nil: not started
	grpc  []*grpc.Server
	pki   *PKI
	hosts []netip.Addr
	lock  *os.File
}

const startTimeout = time.Minute // on a machine that is busy with its own start

func newServer(cfg Config, log *slog.Logger) (*server, error) {
	s := &server{cfg: cfg, log: log, socket: filepath.Join(cfg.Paths.Etcd(), "client.sock"), fatal: fatal{dead: make(chan struct{})},
		unstarted: fault.New(log, "embedded store cannot start, trying again", "embedded store has started")}
	if len(s.socket) > 107 { // sun_path
		return nil, fmt.Errorf("start embedded store: socket path %s is longer than 107 bytes: use a shorter state-dir", s.socket)
	}
	if s.urls = s.listen(); len(s.urls) == 0 {
		s.urls = []string{"unix://" + s.socket}
	}
	return s, nil
}

// serves says whether it has started.
func (s *server) serves() bool { return s.fatal.serves.Load() }

// listen are the URLs for others than this process.
func (s *server) listen() []string {
	if s.cfg.Local == "" {
		return s.cfg.Listen
	}
	return append([]string{"https://" + s.cfg.Local}, s.cfg.Listen...)
}

// start starts etcd. Data that etcd cannot open is set aside and a fresh store started; what the agent caches (policies above
// all) then restores what it knew. A disk that does not take what is written says nothing about the data: see diskFault.
func (s *server) start(ctx context.Context) (err error) {
	dir := s.cfg.Paths.Etcd()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("start embedded store: %w", err)
	}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	// etcd itself would wait for ever for a data directory in use.
	if s.lock, err = lockFile(filepath.Join(dir, "lock")); err != nil {
		return fmt.Errorf("start embedded store: %s: %w", dir, err)
	}
	ecfg, err := s.config()
	if err != nil {
		return fmt.Errorf("start embedded store: %w", err)
	}
	count := starts{filepath.Join(dir, "starts")}
	died, err := count.begin()
	if err != nil {
		return fmt.Errorf("start embedded store: %w", err)
	}
	if err = checkDB(dbPath(ecfg.Dir)); err == nil && died >= maxStarts {
		err = &unusableError{fmt.Errorf("the last %d starts died over it", died)}
	}
	if err == nil {
		s.etcd, err = tryStart(ctx, ecfg)
	}
	if unusable, ok := errors.AsType[*unusableError](err); ok {
		if err := os.RemoveAll(ecfg.Dir + ".damaged"); err != nil {
			return fmt.Errorf("start embedded store: %w", err)
		}
		aside := file.SetAside(ecfg.Dir, unusable.err)
		s.log.Error("embedded store set aside, starting with an empty one", "err", aside)
		s.etcd, err = tryStart(ctx, ecfg)
	}
	if cerr := count.end(); err == nil {
		err = cerr
	}
	if err != nil {
		return explain(err, s.cfg)
	}
	// etcd leaves them to the umask; their directory is root's alone already.
	for _, path := range []string{s.socket, s.peerSocket()} {
		if err := os.Chmod(path, 0o600); err != nil {
			return fmt.Errorf("start embedded store: %w", err)
		}
	}
	s.fatal.serves.Store(true)
	return nil
}

func (s *server) peerSocket() string { return filepath.Join(filepath.Dir(s.socket), "peer.sock") }

func (s *server) config() (*embed.Config, error) {
	client := url.URL{Scheme: "unix", Path: s.socket}
	// The peers' listener takes its path from Host; without one it would be an abstract socket, open to everybody here.
	peer := url.URL{Scheme: "unix", Host: s.peerSocket()}
	for _, path := range []string{s.socket, peer.Host} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // a killed process leaves them
			return nil, err
		}
	}
	e := embed.NewConfig()
	e.Name = "hypha"
	e.Dir = filepath.Join(s.cfg.Paths.Etcd(), "data")
	e.ListenClientUrls = []url.URL{client}
	e.AdvertiseClientUrls = []url.URL{client}
	e.ListenPeerUrls = []url.URL{peer}
	e.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:1"}} // there are no peers to dial it
	e.InitialCluster = e.InitialClusterFromName(e.Name)
	e.ZapLoggerBuilder = embed.NewZapLoggerBuilder(quiet(s.log, zap.WithFatalHook(&s.fatal), zap.WithPanicHook(&s.fatal)))
	e.EnableGRPCGateway = false
	var mu sync.Mutex
	e.ServiceRegister = func(g *grpc.Server) {
		mu.Lock()
		defer mu.Unlock()
		s.grpc = append(s.grpc, g)
	}
	e.TickMs, e.ElectionMs = 200, 1000   // there is nobody to elect against, and each tick costs CPU
	e.BackendBatchInterval = time.Second // it wakes up that often; what is answered is in the log by then
	e.QuotaBackendBytes = defaultQuota
	e.MaxTxnOps = embeddedTxnOps
	e.MaxRequestBytes = 4 * maxRequest
	e.AutoCompactionMode = embed.CompactorModePeriodic
	e.AutoCompactionRetention = "15m"
	e.SnapshotCount = 10000

	listen := s.listen()
	if len(listen) == 0 {
		return e, nil
	}
	for _, l := range listen {
		u, err := url.Parse(l)
		if err != nil {
			return nil, err
		}
		e.ListenClientUrls = append(e.ListenClientUrls, *u)
	}
	var err error
	if s.hosts, err = listenHosts(listen); err != nil {
		return nil, err
	}
	if s.pki, err = OpenPKI(s.cfg.Paths.PKI()); err != nil {
		return nil, err
	}
	if _, err := s.pki.Renew(s.hosts); err != nil {
		return nil, err
	}
	e.ClientTLSInfo = transport.TLSInfo{ // etcd reads the pair again for every handshake
		CertFile: s.pki.path("server.crt"), KeyFile: s.pki.path("server.key"),
		TrustedCAFile: s.pki.path("ca.crt"), ClientCertAuth: true,
	}
	return e, nil
}

// listenHosts are the addresses a server certificate has to name: those listened on; for "any", all the node has.
func listenHosts(listen []string) ([]netip.Addr, error) {
	hosts := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	for _, l := range listen {
		u, err := url.Parse(l)
		if err != nil {
			return nil, err
		}
		ap, err := netip.ParseAddrPort(u.Host)
		if err != nil {
			return nil, err
		}
		if !ap.Addr().IsUnspecified() {
			hosts = append(hosts, ap.Addr().WithZone(""))
			continue
		}
		own, err := net.InterfaceAddrs()
		if err != nil {
			return nil, fmt.Errorf("list own addresses: %w", err)
		}
		for _, a := range own {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				hosts = append(hosts, p.Addr())
			}
		}
	}
	return hosts, nil
}

// unusableError says that etcd could not make sense of its data.
type unusableError struct{ err error }

func (e *unusableError) Error() string { return fmt.Sprintf("data unusable: %v", e.err) }
func (e *unusableError) Unwrap() error { return e.err }

// tryStart starts etcd and waits until it serves. etcd panics over damaged data.
func tryStart(ctx context.Context, cfg *embed.Config) (etcd *embed.Etcd, err error) {
	fresh := true
	if _, serr := os.Stat(filepath.Join(cfg.Dir, "member")); serr == nil {
		fresh = false
	}
	defer func() {
		if p := recover(); p != nil {
			if cause, ok := p.(error); ok {
				etcd, err = nil, fmt.Errorf("etcd: %w", cause)
			} else {
				etcd, err = nil, fmt.Errorf("etcd: %v", p)
			}
			if !fresh && !diskFault(err) {
				err = &unusableError{err}
			}
		}
	}()
	etcd, err = embed.StartEtcd(cfg)
	if err != nil {
		var serr syscall.Errno
		if !fresh && !errors.As(err, &serr) && !errors.Is(err, os.ErrPermission) && !diskFault(err) {
			err = &unusableError{err}
		}
		return nil, err
	}
	wait := time.NewTimer(startTimeout)
	defer wait.Stop()
	select {
	case <-etcd.Server.ReadyNotify():
		return etcd, nil
	case err = <-etcd.Err():
	case <-etcd.Server.StopNotify():
		err = errors.New("stopped while starting")
	case <-wait.C:
		err = fmt.Errorf("not ready after %v", startTimeout)
	case <-ctx.Done():
		err = ctx.Err()
	}
	etcd.Close()
	return nil, err
}

// explain says what to do about a failed start.
func explain(err error, cfg Config) error {
	var op *net.OpError
	if !errors.As(err, &op) || op.Addr == nil {
		return fmt.Errorf("start embedded store: %w", err)
	}
	set := "etcd-listen"
	if op.Addr.String() == cfg.Local {
		set = "etcd-local-address"
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("start embedded store: %s is in use by another process: set %s to a free port, or etcd-endpoints to use the store there: %w", op.Addr, set, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("start embedded store: %s is no address of this node: correct %s: %w", op.Addr, set, err)
	}
	return fmt.Errorf("start embedded store: listen on %s (%s): %w", op.Addr, set, err)
}

func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.New("another agent uses this data: give each agent its own state-dir or node-name")
		}
		return nil, fmt.Errorf("lock: %w", err)
	}
	return f, nil
}

// renewCerts keeps the certificates valid until ctx ends.
func (s *server) renewCerts(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(12 * time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if renewed, err := s.pki.Renew(s.hosts); err != nil {
			log.Error("certificates of the embedded store not renewed", "err", err)
		} else if renewed {
			log.Info("certificates of the embedded store renewed")
		}
	}
}

// stopGRPC ends a server's calls. Behind TLS, etcd serves gRPC by way of net/http, whose connections outlive Stop: a call
// that a client starts while Stop waits for the earlier ones is nobody's to end, and Stop never returns. So it is told again.
func stopGRPC(g *grpc.Server) {
	done := make(chan struct{}, 100)
	for range cap(done) {
		go func() {
			g.Stop()
			done <- struct{}{}
		}()
		select {
		case <-done:
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// stop ends etcd in its own order. One that died holds locks that nobody will ever release: it is left alone.
func (s *server) stop() {
	if s.etcd != nil && s.fatal.err() == nil {
		for _, g := range s.grpc { // else etcd waits for other nodes to end their watches, and they do not
			stopGRPC(g)
		}
		s.etcd.Close()
		s.etcd = nil
	}
	if s.lock != nil && s.etcd == nil {
		_ = s.lock.Close() // releases the lock
		s.lock = nil
	}
}
