package endpoint

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/paths"
	"github.com/hypha-net/hypha/internal/table"
)

// Config of a Manager. Zero values mean the defaults.
type Config struct {
	Paths       paths.Paths // state files and notes of the CNI plugin
	ClusterName string      // "": workloads carry no cluster label
	Gateway4    netip.Addr  // the node's own address in its pod range, next hop of its workloads
	Gateway6    netip.Addr  // likewise
	MTU         int         // of workloads' devices, bytes
	// Relevant says which of a workload's own labels make its identity; nil: all.
	Relevant func(model.Label) bool
	Timeout  time.Duration // of one call; 4.5 s, so that a plugin that waits 5 s has an answer
	Retry    time.Duration // 250 ms: first pause before something is tried again, doubled up to 15 s
	Poll     time.Duration // 1 s: how often Run looks for notes of the CNI plugin
	Grace    time.Duration // how long a workload that gets a new identity keeps the old one, so that other nodes know it by then
	Verify   time.Duration // 2 s: how often Run looks whether attachments are still whole
}

// Deps are what a Manager works with.
type Deps struct {
	IPAM       IPAM
	Identities Identities
	Links      Links
	Datapath   Datapath
	Policy     Policy
	Publisher  Publisher
	// Facts are labels that the cluster gives a workload besides its own (its service account, its namespace's labels), by namespace
	// and name; not ok: not known yet. nil: there are none.
	Facts func(namespace, name string) (labels model.Labels, ok bool)
	Store Store            // nil: files under Config.Paths
	Log   *slog.Logger     // nil: none
	Now   func() time.Time // nil: time.Now
}

// Manager attaches and detaches workloads. All methods are safe for concurrent use. Restore comes first; calls
// before that are refused with ErrNotReady.
type Manager struct {
	cfg  Config
	deps Deps
	log  *slog.Logger
	tab  *table.Table[uint16, model.Endpoint]

	locks   keyLocks
	journal journal

	mu       sync.Mutex // guards what follows; never held during a call to anything in deps
	restored bool
	entries  map[Key]*entry
	ids      idPool
	todo     map[Key]bool  // attachments Run has to look after
	wake     chan struct{} // says that todo has grown
}

// entry is what the manager holds for one attachment. Its fields belong to who holds the attachment's lock.
type entry struct {
	key      Key
	spec     Spec // as first asked
	id       uint16
	v4, v6   netip.Addr         // allocated
	hint     model.IdentityID   // what its labels had in the last run; 0: nothing known
	held     []model.IdentityID // with Identities; the last one is in force, more than one only while a change is unfinished
	link     bool               // from here on: was begun, so it has to be undone
	policy   bool
	attached bool
	public   bool
	saved    bool
	phase    phase
	redo     bool   // what is in force may differ from the row: to be regenerated
	relink   bool   // with redo: its device is gone and has to be made again
	told     string // the last failure to mend it that was logged
}

type phase uint8

const (
	phaseAdding   phase = iota
	phaseAdopted        // found at start: the kernel serves it as before, its identity is not confirmed yet
	phaseReady          // carries traffic
	phaseDeleting       // on its way out; not all of it could be removed yet
)

// New makes a manager; Restore and then Run start it.
func New(cfg Config, deps Deps) (*Manager, error) {
	if deps.IPAM == nil || deps.Identities == nil || deps.Links == nil || deps.Datapath == nil || deps.Policy == nil || deps.Publisher == nil {
		return nil, errors.New("make endpoint manager: a dependency is missing")
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 4500 * time.Millisecond
	}
	if cfg.Retry == 0 {
		cfg.Retry = 250 * time.Millisecond
	}
	if cfg.Poll == 0 {
		cfg.Poll = time.Second
	}
	if cfg.Verify == 0 {
		cfg.Verify = 2 * time.Second
	}
	if deps.Store == nil {
		deps.Store = Files(cfg.Paths.Endpoints())
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	return &Manager{
		cfg: cfg, deps: deps, log: deps.Log, tab: table.New[uint16, model.Endpoint]("endpoints", table.Uint[uint16]),
		entries: map[Key]*entry{}, todo: map[Key]bool{}, ids: newIDPool(), wake: make(chan struct{}, 1), journal: journal{now: deps.Now},
	}, nil
}

// Table holds a row for each endpoint of this node. Only the manager writes to it. It is complete after Restore. The row
// of an endpoint that was found at start has no policy set until its policy has been confirmed.
func (m *Manager) Table() *table.Table[uint16, model.Endpoint] { return m.tab }

// SetPolicies records that endpoints are governed by these sets since a revision: what a policy change did to the
// kernel's rows. Endpoints that are gone are ignored. It may be called from inside Policy.Enforce.
func (m *Manager) SetPolicies(sets map[uint16]model.SetID, revision uint64) {
	m.tab.Update(func(txn *table.Txn[uint16, model.Endpoint]) {
		for id, set := range sets {
			if e, ok := txn.Get(id); ok && (e.PolicySet != uint32(set) || e.PolicyRev != revision) {
				e.PolicySet, e.PolicyRev = uint32(set), revision
				txn.Set(id, e)
			}
		}
	})
}

// SetRevision records that a policy revision is in force on every endpoint that has a policy set.
func (m *Manager) SetRevision(revision uint64) {
	m.tab.Update(func(txn *table.Txn[uint16, model.Endpoint]) {
		var late []model.Endpoint
		for _, e := range txn.All() {
			if e.PolicySet != 0 && e.PolicyRev < revision {
				late = append(late, e)
			}
		}
		for _, e := range late {
			e.PolicyRev = revision
			txn.Set(e.ID, e)
		}
	})
}

// setRow changes the fields of a row that fn touches, leaving what others wrote meanwhile.
func (m *Manager) setRow(id uint16, fn func(*model.Endpoint)) {
	m.tab.Update(func(txn *table.Txn[uint16, model.Endpoint]) {
		if e, ok := txn.Get(id); ok {
			fn(&e)
			txn.Set(id, e)
		}
	})
}

func (m *Manager) setState(id uint16, s model.EndpointState) {
	m.setRow(id, func(e *model.Endpoint) { e.State = s })
}

// begin opens a call for an attachment: bounded in time, alone.
func (m *Manager) begin(ctx context.Context, k Key) (context.Context, func(), error) {
	return m.beginFor(ctx, k, m.cfg.Timeout)
}

// beginFor is begin with another bound.
func (m *Manager) beginFor(ctx context.Context, k Key, timeout time.Duration) (context.Context, func(), error) {
	m.mu.Lock()
	ready := m.restored
	m.mu.Unlock()
	if !ready {
		return nil, nil, ErrNotReady
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	unlock, err := m.locks.lock(ctx, k)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	return ctx, func() { unlock(); cancel() }, nil
}

func (m *Manager) lookup(k Key) *entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.entries[k]
}

// again makes Run look after an attachment.
func (m *Manager) again(k Key) {
	m.mu.Lock()
	m.todo[k] = true
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// aftermath is a context for undoing: it outlives the caller's, but not by much.
func (m *Manager) aftermath(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), m.cfg.Timeout)
}

func (m *Manager) linkSpec(e *entry) LinkSpec {
	s := LinkSpec{
		HostIfName: paths.HostIf(e.key.ContainerID, e.key.IfName), ContainerID: e.key.ContainerID,
		NetNS: e.spec.NetNS, IfName: e.key.IfName, MAC: e.spec.MAC, MTU: m.mtu(e.spec.MTU),
	}
	if e.v4.IsValid() {
		s.Addrs, s.Gateways = append(s.Addrs, e.v4), append(s.Gateways, m.cfg.Gateway4)
	}
	if e.v6.IsValid() {
		s.Addrs, s.Gateways = append(s.Addrs, e.v6), append(s.Gateways, m.cfg.Gateway6)
	}
	return s
}

// mtu is what a workload gets that asked for this: not more than the node has.
func (m *Manager) mtu(asked int) int {
	if asked != 0 {
		return min(asked, m.cfg.MTU)
	}
	return m.cfg.MTU
}
