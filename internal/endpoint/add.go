package endpoint

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/hypha-net/hypha/internal/endpoint/pending"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/paths"
)

// Add attaches a workload and returns its row, with policy in force and the link up. Asked again for the same
// attachment it gives the same answer; with anything changed the error is ErrConflict. After an error nothing is left
// of the attempt.
func (m *Manager) Add(ctx context.Context, spec Spec) (model.Endpoint, error) {
	if err := spec.complete(); err != nil {
		return model.Endpoint{}, err
	}
	labels, err := parseLabels(spec.Labels)
	if err != nil {
		return model.Endpoint{}, err
	}
	k := spec.Key()
	ctx, end, err := m.begin(ctx, k)
	if err != nil {
		return model.Endpoint{}, fmt.Errorf("attach %s: %w", k, err)
	}
	defer end()

	e := m.lookup(k)
	gone := pending.Exists(m.cfg.Paths.PendingDel(), k.ContainerID, k.IfName) // a DEL that came while the agent was down
	if e != nil && !gone && e.phase != phaseDeleting {
		if field := e.spec.differs(&spec); field != "" {
			return model.Endpoint{}, fmt.Errorf("attach %s: %w: its %s was another when it was attached", k, ErrConflict, field)
		}
		row, whole, err := m.answer(ctx, e)
		if err != nil {
			return model.Endpoint{}, fmt.Errorf("attach %s: %w", k, err)
		}
		if whole {
			return row, nil
		}
	}
	if e != nil {
		if err := m.remove(ctx, e); err != nil {
			return model.Endpoint{}, fmt.Errorf("attach %s: remove what was there: %w", k, err)
		}
	}
	if gone {
		if err := pending.Remove(m.cfg.Paths.PendingDel(), k.ContainerID, k.IfName); err != nil {
			return model.Endpoint{}, fmt.Errorf("attach %s: %w", k, err)
		}
	}
	return m.create(ctx, k, spec, labels)
}

// answer repeats the answer for what is attached already; whole is false if its devices are not as they were.
func (m *Manager) answer(ctx context.Context, e *entry) (row model.Endpoint, whole bool, err error) {
	if e.phase == phaseAdopted || e.redo {
		if err := m.regenerate(ctx, e); err != nil {
			return row, false, err
		}
	}
	if err := m.deps.Links.Check(ctx, m.linkSpec(e)); err != nil {
		if ctx.Err() != nil {
			return row, false, err
		}
		m.log.Warn("devices of an attached workload are damaged, attaching it anew", "endpoint", e.id, "attachment", e.key.String(), "error", err)
		return row, false, nil
	}
	row, _ = m.tab.Get(e.id)
	return row, true, nil
}

func (m *Manager) create(ctx context.Context, k Key, spec Spec, labels []model.Label) (model.Endpoint, error) {
	e := &entry{key: k, spec: spec}
	m.mu.Lock()
	id, err := m.ids.take()
	if err == nil {
		e.id = id
		m.entries[k] = e
	}
	m.mu.Unlock()
	if err != nil {
		return model.Endpoint{}, fmt.Errorf("attach %s: %w", k, err)
	}
	m.journal.note(id, model.EndpointWaiting, "asked for by %s", k)
	if err := m.attach(ctx, e, labels); err != nil {
		err = fmt.Errorf("attach %s: %w", k, err)
		m.journal.fail(id, model.EndpointDisconnected, err)
		after, cancel := m.aftermath(ctx)
		defer cancel()
		if left := m.remove(after, e); left != nil { // Run goes on with it
			err = errors.Join(err, fmt.Errorf("undo: %w", left))
		}
		return model.Endpoint{}, err
	}
	e.phase = phaseReady
	m.setState(id, model.EndpointReady)
	m.journal.note(id, model.EndpointReady, "attached")
	row, _ := m.tab.Get(id)
	return row, nil
}

// attach goes through the steps; what it began is noted in e before it is begun.
func (m *Manager) attach(ctx context.Context, e *entry, labels []model.Label) (err error) {
	owner := e.spec.Namespace + "/" + e.spec.Name
	v4, v6 := m.deps.IPAM.Versions()
	var a4, a6 Address
	if v4 {
		if a4, err = m.deps.IPAM.Allocate(ctx, Claim{Owner: owner, Addr: e.spec.IPv4, Pool: e.spec.IPv4Pool}); err != nil {
			return fmt.Errorf("allocate IPv4 address: %w", err)
		}
		e.v4 = a4.Addr
	}
	if v6 {
		if a6, err = m.deps.IPAM.Allocate(ctx, Claim{Owner: owner, V6: true, Addr: e.spec.IPv6, Pool: e.spec.IPv6Pool}); err != nil {
			return fmt.Errorf("allocate IPv6 address: %w", err)
		}
		e.v6 = a6.Addr
	}
	if e.spec.IPv4.IsValid() && !v4 || e.spec.IPv6.IsValid() && !v6 {
		return fmt.Errorf("%w: an address was asked of an IP version that this node has not", ErrInvalid)
	}
	m.journal.note(e.id, model.EndpointWaiting, "addresses %s", e.addrs())
	row := model.Endpoint{
		ID: e.id, Name: e.spec.Name, Namespace: e.spec.Namespace, ContainerID: e.key.ContainerID, NetNS: e.spec.NetNS,
		IfName: e.key.IfName, HostIfName: paths.HostIf(e.key.ContainerID, e.key.IfName), IPv4: e.v4, IPv6: e.v6,
		IPv4Pool: a4.Pool, IPv6Pool: a6.Pool, IPv4NoMasq: a4.NoMasq, IPv6NoMasq: a6.NoMasq,
		Labels: m.resolve(e.spec.Namespace, e.spec.Name, labels, nil), NamedPorts: e.spec.NamedPorts,
		State: model.EndpointWaiting, Created: m.deps.Now().UTC(),
	}
	if row.Identity, err = m.deps.Identities.Allocate(ctx, row.Labels, 0); err != nil {
		return fmt.Errorf("allocate identity: %w", err)
	}
	e.held = append(e.held, row.Identity)
	m.journal.note(e.id, model.EndpointWaiting, "identity %s", row.Identity)

	e.link = true
	link, err := m.deps.Links.Create(ctx, m.linkSpec(e))
	if err != nil {
		return fmt.Errorf("create device pair: %w", err)
	}
	row.HostIfIndex, row.MAC, row.HostMAC = link.HostIfIndex, link.MAC, link.HostMAC
	m.journal.note(e.id, model.EndpointWaiting, "device pair made")

	row.State = model.EndpointRegenerating
	if err := m.enforce(ctx, e, row); err != nil {
		return err
	}
	row, _ = m.tab.Get(e.id)
	e.attached = true
	if err := m.deps.Datapath.Attach(ctx, row); err != nil {
		return fmt.Errorf("attach programs: %w", err)
	}
	m.journal.note(e.id, row.State, "programs attached")
	e.public = true
	if err := m.publish(ctx, row); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil { // the last moment to turn back without anybody having noticed
		return err
	}
	if err := m.deps.Links.Up(ctx, m.linkSpec(e)); err != nil {
		return fmt.Errorf("bring link up: %w", err)
	}
	m.journal.note(e.id, row.State, "link up")
	return m.save(e)
}

// enforce puts policy in force for the row and then writes the row, to the kernel and to the table.
func (m *Manager) enforce(ctx context.Context, e *entry, row model.Endpoint) error {
	e.policy = true
	err := m.deps.Policy.Enforce(ctx, row, func(set model.SetID, revision uint64) error {
		row.PolicySet, row.PolicyRev = uint32(set), revision
		if err := m.deps.Datapath.UpsertEndpoint(ctx, row); err != nil {
			return fmt.Errorf("write endpoint rows: %w", err)
		}
		m.tab.Set(row.ID, row)
		return nil
	})
	if err != nil {
		return fmt.Errorf("put policy in force: %w", err)
	}
	m.journal.note(row.ID, row.State, "policy in force, identity %s", row.Identity)
	return nil
}

// save writes the state file from the row.
func (m *Manager) save(e *entry) error {
	row, _ := m.tab.Get(e.id)
	row.State = model.EndpointReady
	e.saved = true
	if err := m.deps.Store.Save(Record{Endpoint: row, Spec: e.spec}); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	return nil
}

// addrs are the addresses an entry holds.
func (e *entry) addrs() []netip.Addr {
	ep := model.Endpoint{IPv4: e.v4, IPv6: e.v6}
	return ep.Addrs()
}
