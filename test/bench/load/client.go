package load

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// warmUp is not measured.
const warmUp = 100 * time.Millisecond

// run makes transactions on conns connections at a time for this long, warm-up excluded.
func run(to netip.AddrPort, mode Mode, conns int, d time.Duration) (Result, error) {
	workers := make([]worker, conns)
	for i := range workers {
		workers[i].sa = sockaddr(to)
	}
	var wg sync.WaitGroup
	begin := time.Now().Add(warmUp)
	end := begin.Add(d)
	for i := range workers {
		w := &workers[i]
		wg.Go(func() {
			runtime.LockOSThread()
			if mode == RR {
				w.err = w.rr(begin, end)
			} else {
				w.err = w.crr(begin, end)
			}
		})
	}
	wg.Wait()
	var h histogram
	for i := range workers {
		if err := workers[i].err; err != nil {
			return Result{}, fmt.Errorf("%s to %s: %w", mode, to, err)
		}
		h.merge(&workers[i].h)
	}
	return Result{Count: h.count, Elapsed: d, P50: h.quantile(0.5), P99: h.quantile(0.99)}, nil
}

// A worker is one connection at a time.
type worker struct {
	sa  *unix.RawSockaddrInet4
	h   histogram
	err error
	_   [64]byte // keeps neighbours' counters off its cache line
}

// note counts a transaction that ended in the measured time, and says whether to go on.
func (w *worker) note(from, now, begin, end time.Time) bool {
	if now.After(end) {
		return false
	}
	if from.After(begin) {
		w.h.add(now.Sub(from))
	}
	return true
}

func (w *worker) rr(begin, end time.Time) error {
	s, err := newSocket()
	if err != nil {
		return err
	}
	defer s.close()
	if errno := s.connect(w.sa); errno != 0 {
		return fmt.Errorf("connect: %w", errno)
	}
	from := time.Now()
	for {
		if err := exchange(s); err != nil {
			return err
		}
		now := time.Now()
		if !w.note(from, now, begin, end) {
			return nil
		}
		from = now
	}
}

func (w *worker) crr(begin, end time.Time) error {
	from := time.Now()
	for {
		s, err := newSocket()
		if err != nil {
			return err
		}
		if errno := s.connect(w.sa); errno != 0 {
			s.close()
			return fmt.Errorf("connect: %w", errno)
		}
		if err := exchange(s); err != nil {
			s.close()
			return err
		}
		err = atEnd(s)
		s.close()
		if err != nil {
			return err
		}
		now := time.Now()
		if !w.note(from, now, begin, end) {
			return nil
		}
		from = now
	}
}

// exchange sends a byte and waits for one.
func exchange(s socket) error {
	b := byte('x')
	if errno := s.write(&b); errno != 0 {
		return fmt.Errorf("write: %w", errno)
	}
	for {
		n, errno := s.read(&b)
		switch {
		case errno == syscall.EINTR:
		case errno != 0:
			return fmt.Errorf("read: %w", errno)
		case n == 0:
			return errShort
		default:
			return nil
		}
	}
}

// atEnd waits for the server to close.
func atEnd(s socket) error {
	var b byte
	for {
		n, errno := s.read(&b)
		switch {
		case errno == syscall.EINTR:
		case errno != 0:
			return fmt.Errorf("wait for the end: %w", errno)
		case n != 0:
			return errors.New("the server sent more than one byte")
		default:
			return nil
		}
	}
}
