package policy_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	netdev "github.com/hypha-net/hypha/bpf/host"
	layout "github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/bpf/overlay"
	"github.com/hypha-net/hypha/bpf/pod"
	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/datapath/pintest"
	"github.com/hypha-net/hypha/internal/testutil/netns"
)

var discard = slog.New(slog.DiscardHandler)

const (
	actionPass = 0 // TC_ACT_OK
	actionDrop = 2 // TC_ACT_SHOT
	devices    = 4 // d1..d3 lead to workloads, d4 to the outside
)

// kernel is the real datapath: the agent's own maps, the programs on them, a namespace with devices.
type kernel struct {
	t     testing.TB
	dir   string
	maps  *maps.Maps
	progs map[string]*ebpf.Program
	key   *ebpf.Map // tunnel key of the next packet out of the overlay
	ring  *ringbuf.Reader
	dev   []int

	judged int // questions on which all judges agreed
	// Of them, packets that went by a service; and workloads that reached themselves by one.
	services, hairpins int

	sets    uint32 // slot sets so far
	served  *by    // the service that is there
	backend netip.AddrPort
}

// newKernel loads the datapath. The test's goroutine stays on one CPU in the namespace of the devices until it ends, so
// that running a packet is one system call and its events come by one ring, in order.
func newKernel(t testing.TB) *kernel {
	t.Helper()
	ns := netns.New(t, "policy")
	k := &kernel{t: t, dir: pintest.Dir(t), progs: map[string]*ebpf.Program{}}
	k.open()
	t.Cleanup(func() { _ = k.maps.Close() })
	k.makeDevices(ns)
	k.load()
	k.tunnelEntry()
	k.enter(ns)
	ring, err := ringbuf.NewReader(k.maps.Rings()[0])
	k.must(err)
	t.Cleanup(func() { _ = ring.Close() })
	ring.SetDeadline(time.Now().Add(-time.Second))
	k.ring = ring
	return k
}

func (k *kernel) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

// open opens the pinned maps, as an agent that starts does.
func (k *kernel) open() {
	k.t.Helper()
	if k.maps != nil {
		k.must(k.maps.Close())
	}
	m, err := maps.Open(maps.Config{Dir: k.dir, CT: 1 << 16, NAT: 1 << 16, Ring: 1 << 18}, maps.Deps{Log: discard})
	k.must(err)
	k.maps = m
}

func (k *kernel) makeDevices(ns *netns.NS) {
	ns.In(func() error {
		for i := range devices {
			a := netlink.NewLinkAttrs()
			a.Name = fmt.Sprintf("d%d", i+1)
			v := netlink.NewVeth(a)
			v.PeerName = fmt.Sprintf("p%d", i+1)
			if err := netlink.LinkAdd(v); err != nil {
				return fmt.Errorf("make device %s: %w", a.Name, err)
			}
			for _, name := range []string{v.PeerName, a.Name} {
				l, err := netlink.LinkByName(name)
				if err == nil {
					err = netlink.LinkSetUp(l)
				}
				if err != nil {
					return fmt.Errorf("bring up device %s: %w", name, err)
				}
				if name == a.Name {
					k.dev = append(k.dev, l.Attrs().Index)
				}
			}
		}
		return nil
	})
	ns.Addr("d4", "192.0.2.1/24", "2001:db8::1/64")
	ns.Set("net.ipv4.ip_forward", "1")
	ns.Set("net.ipv6.conf.all.forwarding", "1")
	ns.Route("default", "192.0.2.254")
	ns.Route("::/0", "2001:db8::fe")
}

func (k *kernel) load() {
	cfg := layout.Config{
		Flags:       layout.ConfigIPv4 | layout.ConfigIPv6 | layout.ConfigOverlay | layout.ConfigEvents | layout.ConfigRedirectPeer | layout.ConfigServices,
		MasqPortMin: 20000, MasqPortMax: 29999,
		TunnelIfindex: 4242, TunnelPort: 8472, // no such device: BPF_PROG_RUN redirects nowhere
		Router4: layout.AddrFrom(router[0]), Router6: layout.AddrFrom(router[1]),
	}
	for _, open := range []func() (*ebpf.CollectionSpec, error){pod.Spec, overlay.Spec, netdev.Spec} {
		spec, err := open()
		k.must(err)
		k.must(spec.Variables[layout.ConfigVariable].Set(cfg))
		use := map[string]*ebpf.Map{}
		for n, m := range k.maps.Replacements() {
			if s := spec.Maps[n]; s != nil {
				s.MaxEntries = m.MaxEntries()
				use[n] = m
			}
		}
		coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: use})
		k.must(err)
		for _, n := range []string{pod.FromPod, pod.ToPod, overlay.FromOverlay, netdev.FromNetdev} {
			if p := coll.DetachProgram(n); p != nil {
				k.progs[n] = p
				k.t.Cleanup(func() { _ = p.Close() })
			}
		}
		coll.Close()
	}
}

// tunnelKey mirrors `struct bpf_tunnel_key` (linux/bpf.h).
type tunnelKey struct {
	ID     uint32
	Remote [16]byte
	TOS    uint8
	TTL    uint8
	Ext    uint16
	Label  uint32
	Local  [16]byte
}

const fromTunnel = "from_tunnel"

// tunnelEntry makes a program that gives a packet an outer header and goes on into from_overlay: BPF_PROG_RUN cannot. The
// kernel shows the local address of a key that is set as the remote one of a key that is read.
func (k *kernel) tunnelEntry() {
	var err error
	k.key, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: uint32(unsafe.Sizeof(tunnelKey{})), MaxEntries: 1})
	k.must(err)
	next, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	k.must(err)
	k.t.Cleanup(func() { _ = errors.Join(k.key.Close(), next.Close()) })
	k.must(next.Put(uint32(0), k.progs[overlay.FromOverlay]))
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "Dual BSD/GPL", Instructions: asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, k.key.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R2, asm.R0),
		asm.Mov.Imm(asm.R3, int32(unsafe.Sizeof(tunnelKey{}))),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnSkbSetTunnelKey.Call(),
		asm.JNE.Imm(asm.R0, 0, "out"),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.LoadMapPtr(asm.R2, next.FD()),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnTailCall.Call(),
		asm.Mov.Imm(asm.R0, -1).WithSymbol("out"),
		asm.Return(),
	}})
	k.must(err)
	k.t.Cleanup(func() { _ = p.Close() })
	k.progs[fromTunnel] = p
}

// enter moves the test's thread into the namespace and onto CPU 0.
func (k *kernel) enter(ns *netns.NS) {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	k.must(err)
	there, err := os.Open(ns.Path())
	k.must(err)
	defer func() { _ = there.Close() }()
	var were, cpu unix.CPUSet
	k.must(unix.SchedGetaffinity(0, &were))
	cpu.Set(0)
	k.must(unix.SchedSetaffinity(0, &cpu))
	k.must(unix.Setns(int(there.Fd()), unix.CLONE_NEWNET))
	k.t.Cleanup(func() {
		err := errors.Join(unix.Setns(int(home.Fd()), unix.CLONE_NEWNET), unix.SchedSetaffinity(0, &were), home.Close())
		if err == nil {
			runtime.UnlockOSThread() // else the thread ends with the goroutine
		}
	})
}

// judged is one side's policy as the datapath told it.
type judged struct {
	dir      uint8 // as model.Direction
	verdict  uint8 // with the audit flag
	rule     uint32
	from, to uint32 // identities
}

// outcome is what became of a packet.
type outcome struct {
	action uint32
	drop   uint8  // reason, 0 = none
	rule   uint32 // of the drop
	judged []judged
}

func (o outcome) passed() bool { return o.action != actionDrop }

// run sends a frame into a program. The ifindex is that of the device it came in by or leaves by.
func (k *kernel) run(prog string, ifindex int, frame []byte) outcome {
	k.t.Helper()
	ctx := [11]uint32{10: uint32(ifindex)} // head of struct __sk_buff
	var out outcome
	var err error
	out.action, err = k.progs[prog].Run(&ebpf.RunOptions{Data: frame, Context: ctx})
	k.must(err)
	k.events(&out)
	return out
}

// runTunneled sends a frame that came out of the tunnel.
func (k *kernel) runTunneled(outer netip.Addr, vni uint32, frame []byte) outcome {
	k.t.Helper()
	key := tunnelKey{ID: vni}
	a := outer.As4()
	binary.NativeEndian.PutUint32(key.Local[:], binary.BigEndian.Uint32(a[:]))
	k.must(k.key.Put(uint32(0), &key))
	return k.run(fromTunnel, k.dev[devices-1], frame)
}

func (k *kernel) events(out *outcome) {
	var rec ringbuf.Record
	for k.ring.AvailableBytes() > 0 {
		k.must(k.ring.ReadInto(&rec))
		var e layout.Event
		if len(rec.RawSample) != int(unsafe.Sizeof(e)) {
			k.t.Fatalf("event of %d bytes", len(rec.RawSample))
		}
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&e)), len(rec.RawSample)), rec.RawSample)
		switch e.Type {
		case layout.EventDrop:
			out.drop, out.rule = e.Code, e.Rule
		case layout.EventPolicyVerdict:
			j := judged{verdict: e.Code, rule: e.Rule, from: e.SrcIdentity, to: e.DstIdentity}
			if e.Flags&layout.EventEgress != 0 {
				j.dir = 1
			}
			if e.Flags&layout.EventAudit != 0 {
				j.verdict |= layout.VerdictAudit
			}
			out.judged = append(out.judged, j)
		}
	}
}

// forget removes a connection's row.
func (k *kernel) forget(key layout.CTKey) {
	k.t.Helper()
	if err := k.maps.Replacements()[maps.CT].Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		k.t.Fatal(err)
	}
}
