package fault

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// clock is a fault whose log and time are the test's.
func clock() (f *Fault, log *bytes.Buffer, pass func(time.Duration)) {
	log = &bytes.Buffer{}
	f = New(slog.New(slog.NewTextHandler(log, nil)), "not written", "written again")
	now := time.Now()
	f.now = func() time.Time { return now }
	return f, log, func(d time.Duration) { now = now.Add(d) }
}

func TestSaidOnce(t *testing.T) {
	f, log, pass := clock()
	full := errors.New("no space left")
	for range 1000 {
		f.Note(full, "file", "x.json")
		pass(time.Second)
	}
	if got := strings.Count(log.String(), "\n"); got != 1 {
		t.Errorf("%d lines:\n%s", got, log)
	}
	if since, times := f.Since(); !errors.Is(f.Err(), full) || times != 1000 || since.IsZero() {
		t.Errorf("%v, %d times since %v", f.Err(), times, since)
	}
	f.Note(nil)
	f.Note(nil)
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "not written") || !strings.Contains(lines[0], "file=x.json") || strings.Contains(lines[0], "failed") ||
		!strings.Contains(lines[1], "written again") || !strings.Contains(lines[1], "failed=1000") || !strings.Contains(lines[1], "for=16m40s") {
		t.Errorf("log:\n%s", log)
	}
	if since, times := f.Since(); f.Err() != nil || times != 0 || !since.IsZero() {
		t.Errorf("still %v, %d times since %v", f.Err(), times, since)
	}
}

// Another cause is news, but one that is another at each attempt is not a line each.
func TestAnotherCause(t *testing.T) {
	f, log, pass := clock()
	for i := range 600 {
		f.Note(fmt.Errorf("refused from port %d", i))
		pass(100 * time.Millisecond)
	}
	if got := strings.Count(log.String(), "\n"); got < 5 || got > 7 {
		t.Errorf("%d lines in a minute:\n%s", got, log)
	}
}

// What comes and goes all the time is not told each time.
func TestFlapping(t *testing.T) {
	f, log, pass := clock()
	for range 500 {
		f.Note(errors.New("gone"))
		pass(50 * time.Millisecond)
		f.Note(nil)
		pass(50 * time.Millisecond)
	}
	if got := strings.Count(log.String(), "\n"); got < 2 || got > 16 {
		t.Errorf("%d lines in 50 s:\n%s", got, log)
	}
	if f.Err() != nil {
		t.Error(f.Err())
	}
}
