package maps

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
)

// Config says where the maps are and how large. A zero size means: derived from the machine's memory (connections,
// masquerade) or as declared in bpf/maps.
type Config struct {
	Dir      string  // of the pins, in bpffs; made if absent
	MemRatio float64 // part of the memory for derived sizes, default DefaultRatio
	CT       uint32  // rows of ct_v1
	NAT      uint32  // rows of nat_v2
	Policy   uint32  // rows of policy_v1 and of policy_overflow_v1
	IPCache  uint32  // rows of ipcache_exact_v1 and of ipcache_v1
	Services uint32  // rows of lb_frontend_v1, from which the other maps of services follow
	Ring     uint32  // bytes of one CPU's event ring, a power of two, default DefaultRing
}

// Deps are what Open needs from others.
type Deps struct {
	Log *slog.Logger
}

// Maps are the open maps of one agent. Methods are safe for concurrent use, except that one caller at a time writes
// policy lists (PutLists, DeleteLists).
type Maps struct {
	log    *slog.Logger
	byName map[string]*handle
	rings  []*ebpf.Map // by CPU

	area, class, classAt, ct, devices, endpoints, eventCount, events, frag *handle
	ipExact, ipLPM, ipWas, metrics, nat, overflow                          *handle
	policy, state                                                          *handle

	lbAddress, lbAffinity, lbFrontend, lbMaglev, lbMember, lbReverse, lbSlot, lbSource *handle

	deniedExact, deniedLPM, prefilterCount, prefilterState *handle
	xdpCount, xdpDevices                                   *handle

	deniedSpec *ebpf.MapSpec // of a map in deniedExact

	stateMu    sync.Mutex                             // one change of state_v1 at a time
	endpointMu sync.Mutex                             // one writer of endpoints_v1 at a time
	long       map[layoutKey]map[overflowKey]struct{} // rows of policy_overflow_v1 by list
}

// Open adopts the maps pinned under cfg.Dir and creates those that are missing. A map whose size is to change is
// replaced by a copy; the programs in force keep the old one until they are replaced, after which Settle must be called.
func Open(cfg Config, deps Deps) (_ *Maps, err error) {
	// Before Linux 5.11 maps count as memory that this process has locked, of which by default it may lock next to none.
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("lift the limit of locked memory: %w", err)
	}
	mem, err := memory()
	if err != nil {
		return nil, err
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count CPUs: %w", err)
	}
	all, err := specs()
	if err != nil {
		return nil, err
	}
	if err := resize(all, cfg, mem, cpus); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make map directory: %w", err)
	}
	m := &Maps{log: deps.Log, byName: map[string]*handle{}, long: map[layoutKey]map[overflowKey]struct{}{}, deniedSpec: all[PrefilterExact].InnerMap}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		h, err := m.open(filepath.Join(cfg.Dir, name), all[name])
		if err != nil {
			return nil, err
		}
		m.byName[name] = h
	}
	m.name()
	if err := m.openRings(all[Events].InnerMap); err != nil {
		return nil, err
	}
	return m, m.indexOverflow()
}

// name gives the maps their fields.
func (m *Maps) name() {
	for name, f := range map[string]**handle{
		Area: &m.area, Class: &m.class, ClassAt: &m.classAt, CT: &m.ct, Devices: &m.devices, Endpoints: &m.endpoints, EventCount: &m.eventCount,
		Events: &m.events, Frag: &m.frag, IPCacheExact: &m.ipExact, IPCache: &m.ipLPM, IPCacheWas: &m.ipWas, Metrics: &m.metrics,
		LBAddress: &m.lbAddress, LBAffinity: &m.lbAffinity, LBFrontend: &m.lbFrontend, LBMaglev: &m.lbMaglev,
		LBMember: &m.lbMember, LBReverse: &m.lbReverse, LBSlot: &m.lbSlot, LBSource: &m.lbSource,
		NAT: &m.nat, Overflow: &m.overflow, Policy: &m.policy, Prefilter: &m.deniedLPM, PrefilterCount: &m.prefilterCount,
		PrefilterExact: &m.deniedExact, PrefilterState: &m.prefilterState, State: &m.state,
		XDPCount: &m.xdpCount, XDPDevices: &m.xdpDevices,
	} {
		*f = m.byName[name]
	}
}

func (m *Maps) open(pin string, spec *ebpf.MapSpec) (*handle, error) {
	h := &handle{name: spec.Name, pin: pin}
	have, err := ebpf.LoadPinnedMap(pin, nil)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if h.Map, err = ebpf.NewMap(spec); err != nil {
			return nil, fmt.Errorf("create map %s: %w", spec.Name, err)
		}
		if err := h.Pin(pin); err != nil {
			return nil, errors.Join(fmt.Errorf("pin map %s: %w", spec.Name, err), h.Map.Close())
		}
		return h, nil
	case err != nil:
		return nil, fmt.Errorf("open pinned map %s: %w", pin, err)
	}
	if spec.Compatible(have) == nil {
		h.Map = have
		return h, nil
	}
	if err := m.migrate(h, have, spec); err != nil {
		return nil, errors.Join(err, have.Close())
	}
	return h, nil
}

// Replacements are the maps by name, for ebpf.CollectionOptions.MapReplacements. They stay m's.
func (m *Maps) Replacements() map[string]*ebpf.Map {
	out := make(map[string]*ebpf.Map, len(m.byName))
	for name, h := range m.byName {
		out[name] = h.Map
	}
	return out
}

// Repin pins maps again whose pin somebody removed, and says how many: without it, the next agent would start from nothing.
func (m *Maps) Repin() (n int, failed error) {
	for _, h := range m.byName {
		if _, err := os.Stat(h.pin); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		// A clone: the map itself believes that it is pinned.
		again, err := h.Clone()
		if err == nil {
			err = errors.Join(os.MkdirAll(filepath.Dir(h.pin), 0o700), again.Pin(h.pin), again.Close())
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("pin map %s again: %w", h.name, err))
			continue
		}
		n++
	}
	return n, failed
}

// Close closes the descriptors; pins, and so the maps, stay.
func (m *Maps) Close() error {
	var failed error
	for _, h := range m.byName {
		failed = errors.Join(failed, h.Map.Close())
		if h.old != nil {
			failed = errors.Join(failed, h.old.Close())
		}
	}
	for _, r := range m.rings {
		failed = errors.Join(failed, r.Close())
	}
	return failed
}
