package probe

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/hypha-net/hypha/test/churn/history"
)

// renewal is after how many rounds the port changes from which every other round is sent. An old port still hears the echoes that
// are under way until the next one is old.
const renewal = 50

// send sends to everybody in turn until quit.
func (p *Peer) send() error {
	lasting, err := p.clients()
	if err != nil {
		return err
	}
	defer closeAll(lasting)
	var fresh, old []*net.UDPConn
	defer func() { closeAll(fresh); closeAll(old) }()
	for round := 0; ; round++ {
		select {
		case <-p.quit:
			time.Sleep(settle) // the last echoes
			return nil
		default:
		}
		if round%renewal == 0 {
			closeAll(old)
			old = fresh
			if fresh, err = p.clients(); err != nil {
				return err
			}
		}
		from := lasting
		if round%2 == 1 {
			from = fresh
		}
		for _, to := range p.field.others(p) {
			p.ask(to, from, round%2 == 1)
		}
		time.Sleep(Pause)
	}
}

// clients opens a socket to send from for each address.
func (p *Peer) clients() ([]*net.UDPConn, error) {
	var out []*net.UDPConn
	for _, a := range p.addrs {
		c, err := p.open(a.Is6(), 0)
		if err != nil {
			closeAll(out)
			return nil, fmt.Errorf("pod %d sends: %w", p.id, err)
		}
		out = append(out, c)
		p.wg.Go(func() { p.answered(c) })
	}
	return out, nil
}

func closeAll(cs []*net.UDPConn) {
	for _, c := range cs {
		_ = c.Close()
	}
}

// ask sends one datagram to each address of another.
func (p *Peer) ask(to *Peer, from []*net.UDPConn, fresh bool) {
	var b [size]byte
	for i, a := range to.addrs {
		p.mu.Lock()
		n := len(p.probes)
		p.probes = append(p.probes, history.Probe{From: p.id, To: to.id, V6: a.Is6(), Fresh: fresh, Sent: p.field.Now()})
		p.mu.Unlock()
		encode(b[:], p.id, n)
		if _, err := from[i].WriteToUDPAddrPort(b[:], netip.AddrPortFrom(a, history.Port)); err != nil {
			p.mu.Lock()
			p.probes = p.probes[:n] // never sent: no route yet, or a full queue; nobody else appends
			p.mu.Unlock()
		}
	}
}

// hear echoes what arrives and notes it.
func (p *Peer) hear(c *net.UDPConn) {
	b := make([]byte, 2*size)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		id, number, ok := decode(b[:n])
		if sender := p.field.peer(id); ok && sender != nil {
			sender.note(number, func(x *history.Probe) {
				if x.Heard == 0 {
					x.Heard, x.By = p.field.Now(), p.id
				}
			})
			_, _ = c.WriteToUDPAddrPort(b[:n], from)
		}
	}
}

// answered notes echoes.
func (p *Peer) answered(c *net.UDPConn) {
	b := make([]byte, 2*size)
	for {
		n, _, err := c.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		if id, number, ok := decode(b[:n]); ok && id == p.id {
			p.note(number, func(x *history.Probe) { x.Answered = p.field.Now() })
		}
	}
}

func (p *Peer) note(n int, f func(*history.Probe)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n < len(p.probes) {
		f(&p.probes[n])
	}
}
