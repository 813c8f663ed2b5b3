package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/workload"
)

// A stream is a TCP connection to an echo service that never pauses: numbered messages, each sent once the last came back.
type stream struct {
	conn  net.Conn
	count atomic.Uint64 // messages that came back
	last  atomic.Int64  // when the last of them was sent, in Unix nanoseconds: when it is read is up to the scheduler
	done  chan struct{}
	err   error // why it ended; read after done
}

// startStream connects and begins. It ends with the test.
func startStream(t *testing.T, from *netns.NS, to netip.Addr) *stream {
	t.Helper()
	return startStreamAt(t, from, netip.AddrPortFrom(to, workload.EchoPort))
}

// startStreamAt does so where the echo service has another port.
func startStreamAt(t *testing.T, from *netns.NS, to netip.AddrPort) *stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), yes)
	defer cancel()
	c, err := from.DialContext(ctx, "tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	s := &stream{conn: c, done: make(chan struct{})}
	go func() {
		s.err = s.run()
		close(s.done)
	}()
	t.Cleanup(func() { _ = c.Close(); <-s.done })
	return s
}

func (s *stream) run() error {
	var out, in [64]byte
	for n := uint64(1); ; n++ {
		binary.BigEndian.PutUint64(out[:], n)
		sent := time.Now()
		if _, err := s.conn.Write(out[:]); err != nil {
			return err
		}
		if _, err := io.ReadFull(s.conn, in[:]); err != nil {
			return err
		}
		if got := binary.BigEndian.Uint64(in[:]); got != n {
			return fmt.Errorf("message %d came back as %d", n, got)
		}
		s.count.Add(1)
		s.last.Store(sent.UnixNano())
	}
}

// alive waits for messages to come back from now on.
func (s *stream) alive(timeout time.Duration) error {
	from := s.count.Load()
	for end := time.Now().Add(timeout); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		select {
		case <-s.done:
			return fmt.Errorf("the connection ended: %w", s.err)
		default:
		}
		if s.count.Load() > from+1 {
			return nil
		}
	}
	return fmt.Errorf("nothing came back within %s, after %d messages", timeout, from)
}

// silent waits this long and says whether nothing came back meanwhile.
func (s *stream) silent(d time.Duration) bool {
	from := s.count.Load()
	time.Sleep(d)
	return s.count.Load() == from
}

// A counter receives numbered datagrams and knows which are missing.
type counter struct {
	conn net.PacketConn
	mu   sync.Mutex
	from map[netip.Addr]uint64 // datagrams by sender
	seen map[uint64]bool
}

// startCounter listens for datagrams on a port of a namespace, with a buffer for a second's worth, until the test ends.
func startCounter(t *testing.T, ns *netns.NS, port uint16) *counter {
	t.Helper()
	pc, err := ns.ListenPacket("udp", fmt.Sprintf(":%d", port))
	if err != nil {
		t.Fatal(err)
	}
	return count(t, pc)
}

// count counts what comes to a socket until the test ends.
func count(t *testing.T, pc net.PacketConn) *counter {
	t.Helper()
	raw, err := pc.(*net.UDPConn).SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20) })
	}
	if err != nil {
		t.Fatal(err)
	}
	c := &counter{conn: pc, from: map[netip.Addr]uint64{}, seen: map[uint64]bool{}}
	done := make(chan struct{})
	go func() { c.run(); close(done) }()
	t.Cleanup(func() { _ = pc.Close(); <-done })
	return c
}

func (c *counter) run() {
	buf := make([]byte, 65536)
	for {
		n, from, err := c.conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		c.mu.Lock()
		c.from[from.(*net.UDPAddr).AddrPort().Addr().Unmap()]++
		if n >= 8 {
			c.seen[binary.BigEndian.Uint64(buf)] = true
		}
		c.mu.Unlock()
	}
}

// of is the number of datagrams that came from these.
func (c *counter) of(from []netip.Addr) (n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range from {
		n += c.from[a]
	}
	return n
}

// total is the number of datagrams received.
func (c *counter) total() (n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.from {
		n += k
	}
	return n
}

// missing is how many of the numbers 1..n have not come.
func (c *counter) missing(n uint64) (lost uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := uint64(1); i <= n; i++ {
		if !c.seen[i] {
			lost++
		}
	}
	return lost
}

// flood sends numbered datagrams at a rate until stop, which returns how many were sent.
func flood(t *testing.T, from *netns.NS, to netip.AddrPort, perSecond int) (stop func() uint64) {
	t.Helper()
	c, err := from.DialContext(t.Context(), "udp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	quit, done := make(chan struct{}), make(chan uint64, 1)
	go func() {
		var n uint64
		var b [64]byte
		begin := time.Now()
		for {
			select {
			case <-quit:
				done <- n
				return
			default:
			}
			if due := uint64(time.Since(begin).Seconds() * float64(perSecond)); n >= due {
				time.Sleep(500 * time.Microsecond)
				continue
			}
			binary.BigEndian.PutUint64(b[:], n+1)
			if _, err := c.Write(b[:]); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
				continue // not sent: the same number again
			}
			n++
		}
	}()
	var once sync.Once
	stop = func() (n uint64) {
		once.Do(func() { close(quit); n = <-done; _ = c.Close() })
		return n
	}
	t.Cleanup(func() { stop() })
	return stop
}
