package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	layout "github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/bpf/sock"
	"github.com/hypha-net/hypha/internal/datapath/loader"
	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/datapath/pintest"
	"github.com/hypha-net/hypha/internal/model"
	hostns "github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/testutil/cgroup"
	"github.com/hypha-net/hypha/internal/testutil/netns"
)

func TestMain(m *testing.M) { cgroup.Main(m) }

// Addresses of a rig, by IP version: index 0 IPv4, 1 IPv6. Nothing routes to a VIP: who is not translated gets nowhere.
var (
	vip     = [2]netip.Addr{netip.MustParseAddr("172.20.0.1"), netip.MustParseAddr("fd20::1")}
	node    = [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	anyAddr = [2]netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
)

const (
	tcp = unix.IPPROTO_TCP
	udp = unix.IPPROTO_UDP

	patience = 10 * time.Second // with what must come
)

// place is the i-th backend's address; backends live on the loopback device of the node.
func place(version, i int) netip.Addr {
	if version == 1 {
		return netip.MustParseAddr(fmt.Sprintf("fd09::%x", i))
	}
	return netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)})
}

// rig is a node with services: its maps, a target, the programs on the tests' control group.
type rig struct {
	*Target
	t     testing.TB
	m     *maps.Maps
	ns    *netns.NS
	links []link.Link
	host  bool // the programs know which network namespace is the node's; before Linux 5.14 only the machine's first
}

// newNode makes the network namespace of a rig.
func newNode(t testing.TB) *netns.NS {
	t.Helper()
	ns := netns.New(t, "node")
	for v, bits := range []int{32, 128} {
		ns.Addr("lo", netip.PrefixFrom(node[v], bits).String())
		for i := 1; i <= 3; i++ {
			ns.Addr("lo", netip.PrefixFrom(place(v, i), bits).String())
		}
	}
	return ns
}

// newRig makes one in a namespace of its own; flags are those of the programs' constants.
func newRig(t testing.TB, cfg maps.Config, flags uint32) *rig {
	t.Helper()
	return newRigIn(t, newNode(t), cfg, flags)
}

func newRigIn(t testing.TB, ns *netns.NS, cfg maps.Config, flags uint32) *rig {
	t.Helper()
	group := cgroup.Path(t)
	cfg.Dir, cfg.CT, cfg.NAT = pintest.Dir(t), 4096, 4096
	m, err := maps.Open(cfg, maps.Deps{Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(func() { _ = m.Close() })
	target, err := New(Config{Node: node[:]}, m)
	must(t, err)
	r := &rig{Target: target, t: t, m: m, ns: ns}
	constants := layout.Config{Flags: flags}
	if k := loader.Probe(); k.Retval {
		constants.Flags |= layout.ConfigRetval
	}
	ns.In(func() (err error) { constants.HostNetns, err = hostns.Cookie(); return err })
	r.host = constants.HostNetns != 0
	spec, err := sock.Spec()
	must(t, err)
	must(t, spec.Variables[layout.ConfigVariable].Set(constants))
	use := map[string]*ebpf.Map{}
	for name, have := range m.Replacements() {
		if s := spec.Maps[name]; s != nil {
			s.MaxEntries, use[name] = have.MaxEntries(), have
		}
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: use})
	must(t, err)
	t.Cleanup(coll.Close)
	for name, hook := range sock.Hooks() {
		l, err := link.AttachCgroup(link.CgroupOptions{Path: group, Attach: hook, Program: coll.Programs[name]})
		must(t, err)
		r.links = append(r.links, l)
	}
	t.Cleanup(r.detach)
	return r
}

// detach takes the programs off, so that another rig can have its turn.
func (r *rig) detach() {
	for _, l := range r.links {
		_ = l.Close()
	}
	r.links = nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func front(a netip.Addr, port uint16, proto uint8) model.Frontend {
	return model.Frontend{Addr: a, Port: port, Proto: proto}
}

// balance is one to the backends of these numbers, whose port is 8080.
func balance(f model.Frontend, id model.ServiceID, backends ...int) model.Balance {
	b := model.Balance{Frontend: f, ID: id}
	for _, i := range backends {
		b.Slots = append(b.Slots, backend(f, i))
	}
	return b
}

func backend(f model.Frontend, i int) model.Backend {
	version := 1
	if f.Addr.Is4() {
		version = 0
	}
	return model.Backend{Addr: place(version, i), Port: 8080, Proto: f.Proto}
}

// put brings balances into force.
func (r *rig) put(all ...model.Balance) {
	r.t.Helper()
	for _, b := range all {
		must(r.t, r.Update(context.Background(), b.Frontend, b))
	}
}

func (r *rig) remove(f model.Frontend) {
	r.t.Helper()
	must(r.t, r.Delete(context.Background(), f))
}

// serve answers at the backends of these numbers, each with its own address.
func (r *rig) serve(numbers ...int) {
	r.t.Helper()
	for _, i := range numbers {
		for v := range 2 {
			serveAt(r.t, r.ns, netip.AddrPortFrom(place(v, i), 8080))
		}
	}
}

// serveAt answers streams and datagrams at an address with the address.
func serveAt(t testing.TB, ns *netns.NS, at netip.AddrPort) {
	t.Helper()
	l, err := ns.Listen("tcp", at.String())
	must(t, err)
	p, err := ns.ListenPacket("udp", at.String())
	must(t, err)
	t.Cleanup(func() { _, _ = l.Close(), p.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte(at.Addr().String()))
			_ = c.Close()
		}
	}()
	go func() {
		buf := make([]byte, 64)
		for {
			_, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = p.WriteTo([]byte(at.Addr().String()), from)
		}
	}()
}

// socket is a socket as the kernel shows it.
type socket struct {
	fd     int
	mapped bool // IPv6, speaks IPv4
}

// open makes a socket for a destination of this IP version, on a thread that is in the namespace it is meant for.
func open(version int, proto uint8, mapped bool) (*socket, error) {
	family, typ := unix.AF_INET, unix.SOCK_STREAM
	if version == 1 || mapped {
		family = unix.AF_INET6
	}
	if proto == udp {
		typ = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	s := &socket{fd: fd, mapped: mapped}
	tv := unix.NsecToTimeval(patience.Nanoseconds())
	return s, errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv))
}

func (s *socket) close() { _ = unix.Close(s.fd) }

func (s *socket) addr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() && !s.mapped {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

func addrOf(sa unix.Sockaddr) netip.AddrPort {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// answer is who answered, and whom the socket believes to talk to.
type answer struct{ from, peer string }

// call connects, and asks who is there.
func call(to netip.AddrPort, proto uint8, mapped bool) (a answer, err error) {
	// The runtime's signals interrupt calls that wait; a connect that was interrupted is begun anew.
	for a, err = callOnce(to, proto, mapped); errors.Is(err, unix.EINTR); a, err = callOnce(to, proto, mapped) {
	}
	return a, err
}

func callOnce(to netip.AddrPort, proto uint8, mapped bool) (a answer, err error) {
	version := 0
	if to.Addr().Is6() {
		version = 1
	}
	s, err := open(version, proto, mapped)
	if err != nil {
		return a, err
	}
	defer s.close()
	if err := unix.Connect(s.fd, s.addr(to)); err != nil {
		return a, err
	}
	peer, err := unix.Getpeername(s.fd)
	if err != nil {
		return a, err
	}
	a.peer = addrOf(peer).String()
	if proto == udp {
		if _, err := unix.Write(s.fd, []byte("?")); err != nil {
			return a, err
		}
	}
	buf := make([]byte, 64)
	n, err := unix.Read(s.fd, buf)
	a.from = string(buf[:max(n, 0)])
	return a, err
}

// send asks by a datagram of an unconnected socket; peer is the sender of the answer.
func (s *socket) send(to netip.AddrPort) (a answer, err error) {
	if err := unix.Sendto(s.fd, []byte("?"), 0, s.addr(to)); err != nil {
		return a, err
	}
	buf := make([]byte, 64)
	n, from, err := unix.Recvfrom(s.fd, buf, 0)
	for errors.Is(err, unix.EINTR) {
		n, from, err = unix.Recvfrom(s.fd, buf, 0)
	}
	if err != nil {
		return a, err
	}
	return answer{from: string(buf[:n]), peer: addrOf(from).String()}, nil
}

// call is call from the node's own network namespace.
func (r *rig) call(to netip.AddrPort, proto uint8) (a answer, err error) {
	err = r.ns.Do(func() (err error) { a, err = call(to, proto, false); return err })
	return a, err
}
