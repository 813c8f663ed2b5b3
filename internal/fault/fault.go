// Package fault keeps track of what goes wrong again and again, so that a log says a cause once and not a thousand times:
// when it is new, when it has become another one, and when it is over, with how often it was met. Status reads the same.
package fault

import (
	"log/slog"
	"sync"
	"time"
)

// quiet is how long at least lies between two lines about one fault, unless it was over in between and stayed so.
const quiet = 10 * time.Second

// Fault is one thing that may keep failing. It is safe for concurrent use.
type Fault struct {
	log            *slog.Logger
	broken, mended string
	now            func() time.Time

	mu    sync.Mutex
	err   error // nil: all is well
	since time.Time
	times int

	said string    // cause that the log names, "" none
	line time.Time // of the last line
}

// New makes one. broken is what the log says when it begins, mended when it is over.
func New(log *slog.Logger, broken, mended string) *Fault {
	return &Fault{log: log, broken: broken, mended: mended, now: time.Now}
}

// Note tells the outcome of an attempt: nil that it worked. args go into the log's line beside the cause.
func (f *Fault) Note(err error, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	if err == nil {
		f.end(now)
		return
	}
	if f.err == nil {
		f.since, f.times = now, 0
	}
	f.err = err
	f.times++
	text := err.Error()
	if text == f.said || !f.line.IsZero() && now.Sub(f.line) < quiet {
		return
	}
	args = append([]any{"err", err}, args...)
	if f.times > 1 {
		args = append(args, "failed", f.times, "for", now.Sub(f.since).Round(time.Millisecond))
	}
	f.log.Warn(f.broken, args...)
	f.said, f.line = text, now
}

// end says that it is over, if the log knows that it was ever otherwise.
func (f *Fault) end(now time.Time) {
	if f.err == nil {
		return
	}
	if f.said != "" {
		f.log.Info(f.mended, "failed", f.times, "for", now.Sub(f.since).Round(time.Millisecond))
		f.line = now
	}
	f.err, f.said = nil, ""
}

// Err is why the last attempt failed; nil: it did not.
func (f *Fault) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Since is when the fault that lasts began, and how many attempts have failed since.
func (f *Fault) Since() (since time.Time, times int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		return time.Time{}, 0
	}
	return f.since, f.times
}
