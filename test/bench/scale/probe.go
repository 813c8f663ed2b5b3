package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// probe sends datagrams from one pod to another without a pause, each with the time of its sending in it. A packet is
// judged within microseconds of being sent, so those that arrive say what the verdict was when.
type probe struct {
	from, to *net.UDPConn
	began    time.Time
	done     chan struct{}
	wg       sync.WaitGroup

	mu     sync.Mutex
	last   time.Duration // sending time of the newest that arrived
	first  time.Duration // sending time of the first that arrived of those sent since mark
	mark   time.Duration
	passed chan struct{} // closed when first is known
}

const (
	probePort  = 7777
	probePause = 100 * time.Microsecond
)

func startProbe(from, to *cluster.Pod) (p *probe, err error) {
	p = &probe{began: time.Now(), done: make(chan struct{}), passed: make(chan struct{}), mark: time.Hour}
	err = to.NS.Do(func() error {
		p.to, err = net.ListenUDP("udp4", &net.UDPAddr{Port: probePort})
		return err
	})
	if err == nil {
		err = from.NS.Do(func() error {
			p.from, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.Addr(false), probePort)))
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("start probe: %w", err)
	}
	p.wg.Go(p.send)
	p.wg.Go(p.receive)
	return p, nil
}

func (p *probe) stop() error {
	close(p.done)
	err := errors.Join(p.from.Close(), p.to.Close())
	p.wg.Wait()
	return err
}

func (p *probe) send() {
	var b [8]byte
	for {
		select {
		case <-p.done:
			return
		default:
		}
		binary.BigEndian.PutUint64(b[:], uint64(time.Since(p.began)))
		_, _ = p.from.Write(b[:]) // a refusal by ICMP is an answer like any other
		time.Sleep(probePause)
	}
}

func (p *probe) receive() {
	var b [8]byte
	for {
		n, err := p.to.Read(b[:])
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n != len(b) {
			continue
		}
		sent := time.Duration(binary.BigEndian.Uint64(b[:]))
		p.mu.Lock()
		p.last = max(p.last, sent)
		if p.first == 0 && sent >= p.mark {
			p.first = sent
			close(p.passed)
		}
		p.mu.Unlock()
	}
}

const probeLimit = 10 * time.Second

// allowed runs a change and returns how long after its start the first packet that passes was sent.
func (p *probe) allowed(change func() error) (time.Duration, error) {
	p.mu.Lock()
	mark := time.Since(p.began)
	p.mark, p.first, p.passed = mark, 0, make(chan struct{})
	passed := p.passed
	p.mu.Unlock()
	if err := change(); err != nil {
		return 0, err
	}
	select {
	case <-passed:
	case <-time.After(probeLimit):
		return 0, fmt.Errorf("no packet passed within %s of the change that allows it", probeLimit)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.first - mark, nil
}

// denied runs a change and returns how long after its start the last packet that passed was sent.
func (p *probe) denied(change func() error) (time.Duration, error) {
	mark := time.Since(p.began)
	if err := change(); err != nil {
		return 0, err
	}
	for begin := time.Now(); ; {
		p.mu.Lock()
		last := p.last
		p.mu.Unlock()
		if now := time.Since(p.began); now-last > 50*time.Millisecond {
			return max(0, last-mark), nil
		}
		if time.Since(begin) > probeLimit {
			return 0, fmt.Errorf("packets still pass %s after the change that denies them", probeLimit)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
