package workload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/netns"
)

// Outcomes of a probe.
const (
	Reached  = "reached"
	TimedOut = "timed out" // no answer, as when packets are dropped
	Refused  = "refused"   // somebody answered that there is nothing: a reset, an ICMP error
	Failed   = "failed"    // anything else, such as a name that nobody knows
)

// Probe is what came of trying to reach somebody once.
type Probe struct {
	Outcome string        `json:"outcome"`
	Local   string        `json:"local,omitempty"` // address and port that was spoken from, as far as it is known
	Took    time.Duration `json:"took"`
	Answer  string        `json:"answer,omitempty"` // of an HTTP server, its first bytes
	Error   string        `json:"error,omitempty"`

	ns string // network namespace to speak from, "": this one
}

// maxAnswer bounds what a probe repeats of an answer.
const maxAnswer = 256

// Try reaches for a target once, until ctx ends: http://HOST[:PORT]/PATH; tcp://HOST:PORT and udp://HOST:PORT for an echo service;
// connect://HOST:PORT for whoever takes a TCP connection, syn:// for the same without a socket; icmp://HOST. ns is the name of a network namespace to do it in ("": this one); the host has to be an address then. The port that it speaks from is told whether or not somebody answers, so that its packets can be found among flows.
func Try(ctx context.Context, target, ns string) Probe {
	begin := time.Now()
	p := Probe{Outcome: Reached, ns: ns}
	err := p.try(ctx, target)
	p.Took = time.Since(begin)
	if err != nil {
		p.Outcome, p.Error = outcome(err), err.Error()
	}
	return p
}

func (p *Probe) try(ctx context.Context, target string) error {
	u, err := url.Parse(target)
	if err != nil || u.Host == "" {
		return fmt.Errorf("%q is no target: want http://, connect://, syn://, tcp://, udp:// or icmp:// and a host", target)
	}
	c := Client{Dial: p.dial}
	switch u.Scheme {
	case "http":
		body, err := c.Get(ctx, target)
		p.Answer = body[:min(len(body), maxAnswer)]
		return err
	case "connect":
		conn, err := p.dial(ctx, "tcp", u.Host)
		if err != nil {
			return err
		}
		return conn.Close()
	case "tcp", "udp":
		_, err := c.Echo(ctx, u.Scheme, u.Host)
		return err
	case "syn":
		return p.syn(ctx, u.Host)
	case "icmp":
		return p.inside(func() error { return Ping(ctx, u.Hostname()) })
	}
	return fmt.Errorf("%q is no target: there is no %s to probe with", target, u.Scheme)
}

// dial connects from a port that it notes first.
func (p *Probe) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Control: func(network, _ string, raw syscall.RawConn) error {
		var err error
		if e := raw.Control(func(fd uintptr) { p.Local, err = bindFree(int(fd), network) }); e != nil {
			return e
		}
		return err
	}}
	var c net.Conn
	err := p.inside(func() (err error) { c, err = d.DialContext(ctx, network, addr); return err })
	if err != nil {
		return nil, err
	}
	p.Local = c.LocalAddr().String()
	return c, nil
}

// inside runs what makes a socket in the namespace that the probe is to speak from. Only that: goroutines leave it.
func (p *Probe) inside(fn func() error) error {
	if p.ns == "" {
		return fn()
	}
	return netns.Inside(netns.Path(p.ns), fn)
}

// bindFree gives a socket a free port, before it connects, and returns it.
func bindFree(fd int, network string) (string, error) {
	var any unix.Sockaddr = &unix.SockaddrInet4{}
	if network[len(network)-1] == '6' {
		any = &unix.SockaddrInet6{}
	}
	if err := unix.Bind(fd, any); err != nil {
		return "", fmt.Errorf("bind: %w", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return "", fmt.Errorf("bind: %w", err)
	}
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		return fmt.Sprintf("0.0.0.0:%d", a.Port), nil
	case *unix.SockaddrInet6:
		return fmt.Sprintf("[::]:%d", a.Port), nil
	}
	return "", errors.New("bind: the kernel names no port")
}

// outcome says what kind of failure an error is.
func outcome(err error) string {
	var ne net.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &ne) && ne.Timeout():
		return TimedOut
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH):
		return Refused
	}
	return Failed
}

// write prints a probe for whoever asked for it.
func (p Probe) write() []byte {
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return append(b, '\n')
}
