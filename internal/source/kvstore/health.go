package kvstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const retryMin = 250 * time.Millisecond

// Status says how the store is, for `hypha status`.
type Status struct {
	Embedded  bool      `json:"embedded"`
	Endpoints []string  `json:"endpoints"`
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"` // of the last change of Connected
	Complete  bool      `json:"complete"`
	ClusterID uint64    `json:"clusterID,omitempty"`
	Revision  int64     `json:"revision,omitempty"`
	Lease     int64     `json:"lease,omitempty"`
	LeaseTTL  string    `json:"leaseTTL"`
	Published int       `json:"published"` // keys under the lease
	Pending   int       `json:"pending"`   // keys still to be written or removed
	Err       string    `json:"error,omitempty"`
}

// health asks the store a small question now and then.
type health struct {
	s *Store

	mu       sync.Mutex
	asked    bool
	last     error
	since    time.Time
	cluster  uint64
	rev      int64
	replaced chan struct{} // closed when another store, or an older state of it, answers
	changed  chan struct{} // closed when the answer to "is it there" changes
}

func newHealth(s *Store) *health {
	return &health{s: s, since: time.Now(), replaced: make(chan struct{}), changed: make(chan struct{})}
}

func (h *health) run(ctx context.Context) {
	wait := retryMin
	for {
		rctx, cancel := context.WithTimeout(ctx, requestTimeout)
		resp, err := h.s.cli.Get(rctx, heartbeatKey)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			err = wrap(ctx, "ask the store", err)
			if cause := diagnose(ctx, h.s.cli.Endpoints(), h.s.tls); cause != nil && errors.Is(err, ErrUnreachable) {
				err = fmt.Errorf("%w: %w", ErrUnreachable, cause)
			}
			h.note(nil, err)
			if !sleep(ctx, wait) {
				return
			}
			wait = min(2*wait, h.s.cfg.Retry)
			continue
		}
		h.note(resp.Header, nil)
		wait = retryMin
		if !sleep(ctx, h.s.cfg.CheckEvery) {
			return
		}
	}
}

func (h *health) note(header *pb.ResponseHeader, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.asked || (h.last == nil) != (err == nil) {
		h.since = time.Now()
		close(h.changed)
		h.changed = make(chan struct{})
		if err != nil {
			h.s.log.Warn("kvstore does not answer, carrying on with what is known", "endpoints", h.s.cli.Endpoints(), "err", err)
		} else {
			h.s.log.Info("kvstore connected", "endpoints", h.s.cli.Endpoints())
		}
	}
	h.asked, h.last = true, err
	if header == nil {
		return
	}
	// A linearizable read never goes back in time, unless the store is not the one it was.
	if h.cluster != 0 && (header.ClusterId != h.cluster || header.Revision < h.rev) {
		h.s.log.Warn("kvstore was replaced, comparing everything anew", "cluster", header.ClusterId, "revision", header.Revision)
		close(h.replaced)
		h.replaced = make(chan struct{})
	}
	h.cluster, h.rev = header.ClusterId, header.Revision
}

// err is why the store did not answer last time, nil while it does or was not asked yet.
func (h *health) err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

func (h *health) replacement() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.replaced
}

// Status tells how the store is, from what is known: it asks nothing.
func (s *Store) Status() Status {
	st := Status{Embedded: s.srv != nil, Endpoints: s.cli.Endpoints(), LeaseTTL: s.cfg.LeaseTTL.String()}
	if s.srv != nil {
		st.Endpoints = s.srv.urls
	}
	st.Complete = s.nodes.Table().Snapshot().Complete() && s.ips.Table().Snapshot().Complete() &&
		s.identities.Table().Snapshot().Complete() && s.policies.Snapshot().Complete && s.services.Table().Snapshot().Complete()
	lease, published, pending, lerr := s.leases.state()
	st.Lease, st.Published, st.Pending = int64(lease), published, pending
	h := s.health
	h.mu.Lock()
	defer h.mu.Unlock()
	st.Connected, st.Since, st.ClusterID, st.Revision = h.asked && h.last == nil, h.since, h.cluster, h.rev
	switch {
	case h.last != nil:
		st.Err = h.last.Error()
	case lerr != nil:
		st.Err = lerr.Error()
	}
	return st
}
