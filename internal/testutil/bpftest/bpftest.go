// Package bpftest loads the datapath's program objects for tests that run them by BPF_PROG_RUN: shared maps of a small
// size, an event ring per CPU, nothing pinned, devices in a network namespace of the test's own.
package bpftest

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"

	"github.com/hypha-net/hypha/bpf/host"
	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/bpf/overlay"
	"github.com/hypha-net/hypha/bpf/pod"
	"github.com/hypha-net/hypha/bpf/sock"
	"github.com/hypha-net/hypha/bpf/xdp"
	"github.com/hypha-net/hypha/internal/testutil/netns"
)

// Config says how the programs are loaded.
type Config struct {
	maps.Config // zero: AllOn with TunnelIfindex, TunnelPort, masquerade ports and router addresses as Defaults has them

	Devices int    // devices to make in the namespace, named d1, d2, ...; 0 = 4
	MapSize uint32 // rows of each hash and LPM map; 0 = 1024
}

// AllOn are all flags of a configuration, AllOff none but the two IP versions.
const (
	AllOn = maps.ConfigIPv4 | maps.ConfigIPv6 | maps.ConfigOverlay | maps.ConfigMasq4 | maps.ConfigMasq6 |
		maps.ConfigEvents | maps.ConfigTrace | maps.ConfigAccounting | maps.ConfigRedirectPeer | maps.ConfigSockHost | maps.ConfigRetval |
		maps.ConfigServices | maps.ConfigReject | maps.ConfigDSRTCP | maps.ConfigDSRUDP |
		dispatch
	AllOff = maps.ConfigIPv4 | maps.ConfigIPv6

	dispatch = maps.ConfigDSRGeneve | maps.ConfigDSRIPIP
)

// Defaults are constants that suit most tests: everything is on, and of the ways to tell a backend's node which service is meant, options.
func Defaults() maps.Config {
	return maps.Config{
		Flags:          AllOn &^ dispatch,
		TunnelIfindex:  4242, // no such device: BPF_PROG_RUN redirects nowhere
		TunnelPort:     8472,
		ReportInterval: 5000,
		MasqPortMin:    20000,
		MasqPortMax:    29999,
		Router4:        maps.AddrFrom(netip.MustParseAddr("10.0.1.1")),
		Router6:        maps.AddrFrom(netip.MustParseAddr("fd00:1::1")),
	}
}

// Env is a loaded datapath.
type Env struct {
	Maps maps.Maps
	NS   *netns.NS
	Dev  []int // interface indexes of d1, d2, ...

	t       testing.TB
	cfg     maps.Config
	progs   map[string]*ebpf.Program
	tunnels map[string]*tunnel // by program
	rings   []*ebpf.Map
}

// Load makes an environment that lasts as long as the test. It skips the test without root.
func Load(t testing.TB, cfg Config) *Env {
	t.Helper()
	netns.Require(t)
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Fatal(err)
	}
	if cfg.Config == (maps.Config{}) {
		cfg.Config = Defaults()
	}
	if cfg.Devices == 0 {
		cfg.Devices = 4
	}
	if cfg.MapSize == 0 {
		cfg.MapSize = 1024
	}
	e := &Env{t: t, cfg: cfg.Config, progs: map[string]*ebpf.Program{}, tunnels: map[string]*tunnel{}, NS: netns.New(t, "bpf")}
	e.must(e.openMaps(cfg.MapSize))
	e.must(e.openRings())
	e.must(e.makeDevices(cfg.Devices))
	return e
}

func (e *Env) must(err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
}

func (e *Env) openMaps(size uint32) error {
	spec, err := maps.Spec()
	if err != nil {
		return err
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	events := spec.Maps["events_v1"]
	events.MaxEntries, events.InnerMap.MaxEntries = uint32(cpus), ringSize
	for _, m := range spec.Maps {
		switch m.Type {
		case ebpf.Hash, ebpf.LRUHash, ebpf.LPMTrie:
			m.MaxEntries = size
		}
	}
	if err := spec.LoadAndAssign(&e.Maps, nil); err != nil {
		return fmt.Errorf("load maps: %w", err)
	}
	e.t.Cleanup(func() { _ = e.Maps.Close() })
	return nil
}

func (e *Env) shared() map[string]*ebpf.Map {
	m := e.Maps
	return map[string]*ebpf.Map{
		"area_v1": m.AreaV1, "class_v1": m.ClassV1, "class_at_v1": m.ClassAtV1, "ct_v1": m.CtV1, "devices_v1": m.DevicesV1, "endpoints_v1": m.EndpointsV1,
		"event_count_v1": m.EventCountV1, "events_v1": m.EventsV1, "frag_v1": m.FragV1,
		"ipcache_exact_v1": m.IpcacheExactV1, "ipcache_v1": m.IpcacheV1, "ipcache_was_v1": m.IpcacheWasV1, "metrics_v1": m.MetricsV1, "nat_v2": m.NatV2,
		"lb_address_v1": m.LbAddressV1, "lb_affinity_v1": m.LbAffinityV1, "lb_frontend_v1": m.LbFrontendV1,
		"lb_maglev_v1": m.LbMaglevV1, "lb_member_v1": m.LbMemberV1, "lb_reverse_v1": m.LbReverseV1, "lb_slot_v1": m.LbSlotV1,
		"lb_source_v1":       m.LbSourceV1,
		"prefilter_count_v1": m.PrefilterCountV1, "prefilter_exact_v1": m.PrefilterExactV1,
		"prefilter_state_v1": m.PrefilterStateV1, "prefilter_v1": m.PrefilterV1,
		"policy_overflow_v1": m.PolicyOverflowV1, "policy_v1": m.PolicyV1, "scratch_v1": m.ScratchV1, "state_v1": m.StateV1,
		"xdp_count_v1": m.XdpCountV1, "xdp_devices_v1": m.XdpDevicesV1,
	}
}

// Objects are the program objects: a name, and how to read them.
func Objects() map[string]func() (*ebpf.CollectionSpec, error) {
	return map[string]func() (*ebpf.CollectionSpec, error){"pod": pod.Spec, "overlay": overlay.Spec, "host": host.Spec, "sock": sock.Spec,
		"prefilter": xdp.PrefilterSpec, "fast": xdp.FastSpec}
}

var objectOf = map[string]string{
	pod.FromPod: "pod", pod.ToPod: "pod", overlay.FromOverlay: "overlay", overlay.ToOverlay: "overlay", host.FromNetdev: "host", host.ToNetdev: "host",
	xdp.Prefilter: "prefilter", xdp.PrefilterL3: "prefilter", xdp.Fast: "fast",
}

// Prog is a program by name (pod.FromPod and so on). Its object is loaded when first asked for.
func (e *Env) Prog(name string) *ebpf.Program {
	e.t.Helper()
	if p := e.progs[name]; p != nil {
		return p
	}
	open := Objects()[objectOf[name]]
	if open == nil {
		e.t.Fatalf("no program %q", name)
	}
	spec, err := open()
	e.must(err)
	coll, err := e.LoadObject(spec, e.cfg)
	e.must(err)
	for n := range coll.Programs {
		p := coll.DetachProgram(n)
		e.progs[n] = p
		e.t.Cleanup(func() { _ = p.Close() })
	}
	coll.Close()
	return e.progs[name]
}

// Configure changes the constants of programs that are not loaded yet.
func (e *Env) Configure(cfg maps.Config) { e.cfg = cfg }

// LoadObject loads a program object on the environment's maps. The caller closes it.
func (e *Env) LoadObject(spec *ebpf.CollectionSpec, cfg maps.Config) (*ebpf.Collection, error) {
	if v := spec.Variables[maps.ConfigVariable]; v != nil {
		if err := v.Set(cfg); err != nil {
			return nil, fmt.Errorf("set constants: %w", err)
		}
	}
	use := map[string]*ebpf.Map{}
	for n, m := range e.shared() {
		if s := spec.Maps[n]; s != nil {
			s.MaxEntries = m.MaxEntries()
			use[n] = m
		}
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: use,
		Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats}})
	if err != nil {
		return nil, fmt.Errorf("load programs: %w", err)
	}
	return coll, nil
}

// processed is how the verifier's log says how much it has looked at.
var processed = regexp.MustCompile(`processed (\d+) insns`)

// Verified is how many instructions the verifier looked at to let a program of LoadObject pass.
func Verified(p *ebpf.Program) (int, error) {
	found := processed.FindStringSubmatch(p.VerifierLog)
	if found == nil {
		return 0, fmt.Errorf("the verifier does not say how much it has looked at: %q", p.VerifierLog)
	}
	return strconv.Atoi(found[1])
}

// makeDevices makes device pairs; the peer of d1 is p1 in the same namespace.
func (e *Env) makeDevices(count int) error {
	return e.NS.Do(func() error {
		for i := range count {
			a := netlink.NewLinkAttrs()
			a.Name = fmt.Sprintf("d%d", i+1)
			v := netlink.NewVeth(a)
			v.PeerName = fmt.Sprintf("p%d", i+1)
			if err := netlink.LinkAdd(v); err != nil {
				return fmt.Errorf("make device %s: %w", a.Name, err)
			}
			for _, name := range []string{a.Name, v.PeerName} {
				l, err := netlink.LinkByName(name)
				if err == nil {
					err = netlink.LinkSetUp(l)
				}
				if err != nil {
					return fmt.Errorf("bring up device %s: %w", name, err)
				}
				if name == a.Name {
					e.Dev = append(e.Dev, l.Attrs().Index)
				}
			}
		}
		return nil
	})
}
