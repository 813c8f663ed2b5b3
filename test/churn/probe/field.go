// Package probe lets pods probe one another without a pause: every pod sends numbered datagrams to all others in turn, over both
// IP versions, from a port that it keeps and from one that it changes, and echoes what it hears. All of it is recorded, with
// times of one clock.
package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/test/churn/history"
)

// Pause is how long a pod rests after it has sent to everybody once; no probe waits for the echo of another.
const Pause = 2 * time.Millisecond

// magic begins a datagram; then come the sender and the number of the probe.
const magic = 0x68797068

const size = 12

// settle is how long a pod that has stopped to send listens for the last echoes.
const settle = 300 * time.Millisecond

// Field is all pods that probe one another.
type Field struct {
	begin time.Time

	mu    sync.Mutex
	peers map[int]*Peer // those that are there
	all   map[int]*Peer // those that have left too
}

// New makes an empty field whose clock starts now.
func New() *Field { return &Field{begin: time.Now(), peers: map[int]*Peer{}, all: map[int]*Peer{}} }

// Now is the field's clock.
func (f *Field) Now() time.Duration { return time.Since(f.begin) }

// Peer is a pod of the field.
type Peer struct {
	field *Field
	id    int
	ns    *netns.NS
	addrs []netip.Addr
	serve []*net.UDPConn // one for each address
	quit  chan struct{}
	once  sync.Once // closes quit
	wg    sync.WaitGroup
	sent  chan struct{} // closed when it sends no more and the last echoes are there
	err   error         // why it stopped early; read after sent

	mu     sync.Mutex
	probes []history.Probe
}

// Join makes a pod a part of the field, whether it is attached already or not: it sends and hears as soon as it can. addrs are
// those it has or will have.
func (f *Field) Join(id int, ns *netns.NS, addrs []netip.Addr) (*Peer, error) {
	p := &Peer{field: f, id: id, ns: ns, addrs: addrs, quit: make(chan struct{}), sent: make(chan struct{})}
	for _, a := range addrs {
		c, err := p.open(a.Is6(), history.Port)
		if err != nil {
			p.close()
			return nil, fmt.Errorf("pod %d joins: %w", id, err)
		}
		p.serve = append(p.serve, c)
	}
	f.mu.Lock()
	f.peers[id] = p
	f.all[id] = p
	f.mu.Unlock()
	for _, c := range p.serve {
		p.wg.Go(func() { p.hear(c) })
	}
	p.wg.Go(func() { defer close(p.sent); p.err = p.send() })
	return p, nil
}

// Leave ends a pod's part; its namespace may go then.
func (p *Peer) Leave() error {
	p.field.mu.Lock()
	delete(p.field.peers, p.id)
	p.field.mu.Unlock()
	p.rest()
	<-p.sent
	p.close()
	p.wg.Wait()
	return p.err
}

// rest makes a pod send no more.
func (p *Peer) rest() { p.once.Do(func() { close(p.quit) }) }

func (p *Peer) close() {
	for _, c := range p.serve {
		_ = c.Close()
	}
}

// End makes all leave and returns what was recorded, also by those that had left before.
func (f *Field) End() ([]history.Probe, error) {
	f.mu.Lock()
	here, all := slices.Collect(maps.Values(f.peers)), slices.Collect(maps.Values(f.all))
	f.mu.Unlock()
	for _, p := range here {
		p.rest() // first, so that nobody asks whoever has left
	}
	var errs error
	for _, p := range here {
		<-p.sent
	}
	for _, p := range here {
		errs = errors.Join(errs, p.Leave())
	}
	var out []history.Probe
	for _, p := range all {
		out = append(out, p.probes...)
	}
	return out, errs
}

// others are the peers to send to.
func (f *Field) others(of *Peer) (out []*Peer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.peers {
		if p != of {
			out = append(out, p)
		}
	}
	return out
}

// peer is whoever has the number, also when it has left.
func (f *Field) peer(id int) *Peer {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.all[id]
}

// open makes a socket with room for what comes while nobody reads.
func (p *Peer) open(v6 bool, port int) (*net.UDPConn, error) {
	network := map[bool]string{false: "udp4", true: "udp6"}[v6]
	pc, err := p.ns.ListenPacket(network, fmt.Sprintf(":%d", port))
	if err != nil {
		return nil, err
	}
	c := pc.(*net.UDPConn)
	raw, err := c.SyscallConn()
	if err == nil {
		ctl := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20) })
		err = errors.Join(ctl, err)
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

func encode(b []byte, id, n int) {
	binary.BigEndian.PutUint32(b, magic)
	binary.BigEndian.PutUint32(b[4:], uint32(id))
	binary.BigEndian.PutUint32(b[8:], uint32(n))
}

func decode(b []byte) (id, n int, ok bool) {
	if len(b) != size || binary.BigEndian.Uint32(b) != magic {
		return 0, 0, false
	}
	return int(binary.BigEndian.Uint32(b[4:])), int(binary.BigEndian.Uint32(b[8:])), true
}
