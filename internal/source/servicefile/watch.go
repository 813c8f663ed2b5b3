// Package servicefile reads services from a file and follows its changes. The file may be replaced by renaming or written in
// place: it counts only once nobody has it open for writing and it has been the same for a moment, and only as a whole. What
// cannot be read, or is gone, changes nothing: the services of the last good file stay.
package servicefile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/table"
)

const (
	poll    = 200 * time.Millisecond
	calm    = 10 // looks at an unchanged file, where nobody can tell whether it is being written
	maxSize = 64 << 20
)

// File is a services file.
type File struct {
	path string
	log  *slog.Logger
	tab  *table.Table[model.Frontend, model.Service]

	last    stamp // of the content that was read, good or bad
	pending stamp // seen at the last look, not read yet,
	calm    int   // and for so many looks

	mu  sync.Mutex
	err error
}

// stamp tells contents of a file apart.
type stamp struct {
	ino          uint64
	size         int64
	mtime, ctime unix.Timespec
}

// New makes one; Run follows it.
func New(path string, log *slog.Logger) *File {
	return &File{path: path, log: log, tab: table.New[model.Frontend, model.Service]("services file", table.Frontend)}
}

// Table holds the services of the last good file; it is complete once there was one.
func (f *File) Table() *table.Table[model.Frontend, model.Service] { return f.tab }

// Err says why the file as it is does not count, nil if it does.
func (f *File) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Run follows the file until ctx ends. It looks again and again instead of asking the kernel for events: these are about names in
// one directory, and miss what changes behind a symbolic link.
func (f *File) Run(ctx context.Context) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		f.look()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look reads the file if it has changed and come to rest.
func (f *File) look() {
	now, err := f.stat()
	if err != nil {
		f.last, f.pending = stamp{}, stamp{}
		f.note(err)
		return
	}
	switch {
	case now == f.last:
		f.pending = stamp{}
		return
	case now != f.pending:
		f.pending, f.calm = now, 0 // come again
		return
	}
	f.calm++
	data, settled, err := f.read(now)
	if !settled {
		return
	}
	f.last, f.pending = now, stamp{}
	if err == nil {
		var services []model.Service
		if services, err = Parse(data); err == nil {
			f.replace(services)
		}
	}
	if err != nil {
		err = fmt.Errorf("services file %s: %w", f.path, err)
	}
	f.note(err)
}

func (f *File) stat() (stamp, error) {
	var st unix.Stat_t
	if err := unix.Stat(f.path, &st); err != nil {
		return stamp{}, fmt.Errorf("services file %s: %w", f.path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return stamp{}, fmt.Errorf("services file %s: not a regular file", f.path)
	}
	return stamp{ino: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}, nil
}

// read returns the content, and whether it is settled: nobody writes to the file, and it is the one that was looked at.
func (f *File) read(want stamp) (data []byte, settled bool, err error) {
	file, err := os.Open(f.path)
	if err != nil {
		return nil, true, err
	}
	defer file.Close()
	// A read lease is granted only while nobody has the file open for writing. Some file systems have none.
	_, err = unix.FcntlInt(file.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	if errors.Is(err, unix.EAGAIN) || err != nil && f.calm < calm {
		return nil, false, nil
	}
	if data, err = io.ReadAll(io.LimitReader(file, maxSize+1)); err != nil {
		return nil, true, err
	}
	if len(data) > maxSize {
		return nil, true, fmt.Errorf("more than %d MiB", maxSize>>20)
	}
	now, err := f.stat()
	return data, err == nil && now == want, nil
}

// note keeps what is wrong, and logs it when it is new.
func (f *File) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil && (f.err == nil || f.err.Error() != err.Error()) {
		f.log.Error("services file not used, the services of the last good one stay", "err", err)
	}
	f.err = err
}

func (f *File) replace(services []model.Service) {
	want := make(map[model.Frontend]bool, len(services))
	f.tab.Update(func(x *table.Txn[model.Frontend, model.Service]) {
		for _, s := range services {
			want[s.Frontend] = true
			if old, ok := x.Get(s.Frontend); !ok || !s.Equal(&old) {
				x.Set(s.Frontend, s)
			}
		}
		var gone []model.Frontend
		for k := range x.All() {
			if !want[k] {
				gone = append(gone, k)
			}
		}
		for _, k := range gone {
			x.Delete(k)
		}
	})
	f.tab.SetComplete()
	f.log.Info("services file read", "path", f.path, "services", len(services))
}
