package kvstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"

	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"
)

// etcd knows one answer to a disk that does not take a write: to end the process. An agent must not end over that, and etcd
// cannot go on: what it answered may not be in its database. So the goroutine that would end the process stands still for
// good, the store counts as away, and Store.Dead says so; a process that starts over brings the store back.

// fatal is what happens where etcd would end the process.
type fatal struct {
	serves atomic.Bool // else the panic is caught by who starts it

	mu    sync.Mutex
	cause error
	dead  chan struct{} // closed once there is a cause
}

// OnWrite implements zapcore.CheckWriteHook. It does not return.
func (f *fatal) OnWrite(ce *zapcore.CheckedEntry, fields []zapcore.Field) {
	cause := errors.New(ce.Message)
	for _, field := range fields {
		if err, ok := field.Interface.(error); ok {
			cause = fmt.Errorf("%s: %w", ce.Message, err)
		}
	}
	if !f.serves.Load() {
		panic(cause)
	}
	f.mu.Lock()
	if f.cause == nil {
		f.cause = fmt.Errorf("embedded store stopped: %w", cause)
		close(f.dead)
	}
	f.mu.Unlock()
	select {}
}

func (f *fatal) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cause
}

// diskFault says whether an error is the disk's and none of the data's: no room, or not to be written to.
func diskFault(err error) bool {
	for _, e := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// restartRoom is how much of the disk must be free before an agent starts over for its store: some transactions' worth.
const restartRoom = 16 << 20

// room says why the embedded store would not live where dir lies; nil if it would.
func room(dir string) error {
	var fs unix.Statfs_t
	switch err := unix.Statfs(dir, &fs); {
	case err != nil:
		return err
	case fs.Flags&unix.ST_RDONLY != 0:
		return syscall.EROFS
	case fs.Bavail*uint64(fs.Bsize) < restartRoom:
		return syscall.ENOSPC
	default:
		return nil
	}
}

// fault is why the embedded store does not serve; nil while it does.
func (s *server) fault() error {
	if err := s.fatal.err(); err != nil {
		return err
	}
	return s.unstarted.Err()
}

// revive starts an embedded store that could not start for want of a disk, and watches one that serves. When one has died, and
// the disk takes writes again, it closes dead.
func (s *Store) revive(ctx context.Context) {
	for !s.srv.serves() {
		if !sleep(ctx, s.cfg.Retry) {
			return
		}
		err := s.srv.start(ctx)
		if ctx.Err() != nil {
			return
		}
		s.srv.unstarted.Note(err)
	}
	if s.srv.pki != nil {
		s.start(func(ctx context.Context) { s.srv.renewCerts(ctx, s.log) })
	}
	select {
	case <-ctx.Done():
		return
	case <-s.srv.fatal.dead:
	}
	s.health.note(nil, s.srv.fault())
	for again := true; again; again = room(s.cfg.Paths.Etcd()) != nil { // not at once: what kills it may not be the disk
		if !sleep(ctx, s.cfg.Retry) {
			return
		}
	}
	close(s.dead)
}

// Dead is closed when the embedded store has died and would live again in a process that starts over.
func (s *Store) Dead() <-chan struct{} { return s.dead }
