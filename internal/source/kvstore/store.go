package kvstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hypha-net/hypha/internal/fault"
	"github.com/hypha-net/hypha/internal/source/state"
)

// ErrUnreachable says that the store did not answer. What was asked may or may not have happened there.
var ErrUnreachable = state.ErrUnreachable

// Store is the cluster's state, and this node's share in it. Its methods may be called from any goroutine.
type Store struct {
	cfg    Config
	log    *slog.Logger
	srv    *server     // nil when external
	tls    *tls.Config // of an external one
	cli    *clientv3.Client
	maxOps int

	ctx    context.Context
	cancel context.CancelFunc
	closed sync.Once
	wg     sync.WaitGroup // followers, cache writers, checks
	leases *leaser
	health *health
	dead   chan struct{} // see Dead
	// unclaimed is why the file of the pod ranges could not be written.
	unclaimed *fault.Fault

	nodes      *Nodes
	ips        *IPs
	identities *Identities
	policies   *Policies
	services   *Services
}

// Open starts following the store and returns without waiting for an external one; an embedded one that does not start
// is an error that says what to change, unless it is the disk that has no room or takes no writes: then it is started as soon
// as that is over, and until then is away as an external one may be. State files that are damaged are set aside and reported in the log. Close it.
func Open(ctx context.Context, cfg Config, deps Deps) (*Store, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, log: deps.Log, maxOps: defaultTxnOps, dead: make(chan struct{}),
		unclaimed: fault.New(deps.Log, "pod ranges not noted: a start without the store will have none", "pod ranges noted again")}
	ccfg := clientv3.Config{
		Endpoints:            cfg.Endpoints,
		DialTimeout:          requestTimeout,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
		MaxCallSendMsgSize:   4 * maxRequest,
		Logger:               quiet(deps.Log),
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: cfg.Retry},
			MinConnectTimeout: requestTimeout,
		})},
	}
	if len(cfg.Endpoints) == 0 {
		if s.srv, err = newServer(cfg, deps.Log); err != nil {
			return nil, err
		}
		if err = s.srv.start(ctx); err != nil && !diskFault(err) {
			return nil, err
		}
		s.srv.unstarted.Note(err)
		ccfg.Endpoints = []string{"unix://" + s.srv.socket}
		s.maxOps = embeddedTxnOps
	} else if cfg.TLS != (TLSFiles{}) {
		if ccfg.TLS, err = cfg.TLS.Client(); err != nil {
			return nil, err
		}
		s.tls = ccfg.TLS
	}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	ccfg.Context = s.ctx
	if s.cli, err = clientv3.New(ccfg); err != nil {
		s.cancel()
		if s.srv != nil {
			s.srv.stop()
		}
		return nil, fmt.Errorf("open kvstore: %w", err)
	}
	s.health = newHealth(s)
	s.leases = newLeaser(s)
	s.nodes = newNodes(s)
	s.ips = newIPs(s)
	s.identities = newIdentities(s)
	s.policies = newPolicies(s)
	s.services = newServices(s)

	s.start(s.health.run)
	s.start(s.leases.run)
	s.start(s.nodes.run)
	s.start(s.ips.run)
	s.start(s.identities.run)
	s.start(s.policies.run)
	s.start(s.services.run)
	s.start(s.runGC)
	s.start(s.writeClusterConfig)
	if s.srv != nil {
		s.start(s.revive)
	}
	return s, nil
}

func (s *Store) start(fn func(context.Context)) { s.wg.Go(func() { fn(s.ctx) }) }

// Close stops following and publishing, writes the caches and, when embedded, stops the store. What this node published
// stays until its lease runs out, so that an agent that restarts finds its cluster unchanged.
func (s *Store) Close() (err error) {
	s.closed.Do(func() {
		s.cancel()
		s.wg.Wait()
		if err = s.cli.Close(); errors.Is(err, context.Canceled) {
			err = nil
		}
		if s.srv != nil {
			s.srv.stop()
		}
	})
	if err != nil {
		return fmt.Errorf("close kvstore: %w", err)
	}
	return nil
}

// Nodes is the membership of the cluster.
func (s *Store) Nodes() *Nodes { return s.nodes }

// IPs is who lives where, on other nodes.
func (s *Store) IPs() *IPs { return s.ips }

// Identities is what numbers label sets have.
func (s *Store) Identities() *Identities { return s.identities }

// Policies is what has been imported.
func (s *Store) Policies() *Policies { return s.policies }

// Services are the services of the cluster.
func (s *Store) Services() *Services { return s.services }

// ClientFiles are the credentials another node needs for this embedded store, and false when it serves none.
func (s *Store) ClientFiles() (TLSFiles, bool) {
	if s.srv == nil || !s.srv.serves() || s.srv.pki == nil {
		return TLSFiles{}, false
	}
	return s.srv.pki.Files(), true
}

// Ready waits until every table is complete.
func (s *Store) Ready(ctx context.Context) error {
	for _, synced := range []<-chan struct{}{s.nodes.f.synced, s.ips.f.synced, s.identities.f.synced, s.policies.synced, s.services.f.synced} {
		select {
		case <-synced:
		case <-s.ctx.Done():
			return errors.New("kvstore is closed")
		case <-ctx.Done():
			if err := s.health.err(); err != nil {
				return fmt.Errorf("wait for kvstore: %w: %w", ctx.Err(), err)
			}
			return fmt.Errorf("wait for kvstore: %w", ctx.Err())
		}
	}
	return nil
}

// Flush waits until all that this node publishes is stored and all it withdrew is gone.
func (s *Store) Flush(ctx context.Context) error { return s.leases.flush(ctx) }

// request bounds one request: shorter while the store is known to be away, so that callers with another way go it soon.
func (s *Store) request(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := requestTimeout
	if s.health.err() != nil {
		limit = requestTimeout / 4
	}
	return context.WithTimeout(ctx, limit)
}

// wrap names what failed, and makes errors that mean "no answer" ErrUnreachable. ctx is the caller's.
func wrap(ctx context.Context, doing string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%s: %w", doing, ctx.Err())
	}
	if unreachable(err) {
		return fmt.Errorf("%s: %w (%w)", doing, ErrUnreachable, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func unreachable(err error) bool {
	if errors.Is(err, ErrUnreachable) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	if ee, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		return ee.Code() == codes.Unavailable || ee.Code() == codes.DeadlineExceeded
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded:
		return true
	default:
		return false
	}
}

// sleep waits d or until ctx ends, and says whether it waited.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
