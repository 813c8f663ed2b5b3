// Package mutate makes hostile inputs out of good ones, the same for the same seed, and times what they cost: for tests that
// run a bounded number of them on every run. Coverage-guided fuzzing, without end, is `make fuzz`.
package mutate

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tokens are pieces that parsers trip over.
var tokens = []string{"{", "}", "[", "]", "\"", "\\u0000", "\\ud800", ":", ",", "null", "true", "-1", "1e999", "18446744073709551616", "0x7f", "\x00",
	"\xff\xfe", "\x1b[31m", "\u202e", "\n---\n", "&a ", "*a", "<<: ", "!!binary ", "? ", "- ", "|", ">", "%", "../", "//", ";", "=", "::", "0.0.0.0/0",
	"::/0", "2001:db8::/129", "255.255.255.256", "\"\"", "[]", "{}", "#", "\t", " ", "\r\n", "é", "\U0001f600", "((a*)*)*", "[^", "(?P<", "**", "k8s:", "any:",
	"reserved:host"}

// Text is one of the corpus, changed in one to eight places.
func Text(r *rand.Rand, corpus [][]byte) []byte {
	b := slices.Clone(corpus[r.IntN(len(corpus))])
	for range 1 + r.IntN(8) {
		b = change(r, b, corpus)
	}
	return b
}

// most keeps inputs from growing without end, in bytes.
const most = 64 << 10

func change(r *rand.Rand, b []byte, corpus [][]byte) []byte {
	at := r.IntN(len(b) + 1)
	end := at + r.IntN(min(len(b)-at, 64)+1)
	switch r.IntN(8) {
	case 0:
		if at < len(b) {
			b[at] ^= 1 << r.IntN(8)
		}
	case 1:
		if at < len(b) {
			b[at] = byte(r.Uint32())
		}
	case 2:
		return slices.Delete(b, at, end)
	case 3: // again and again: nesting, long lists
		n := 1 + r.IntN(1<<r.IntN(10))
		if piece := b[at:end]; len(b)+n*len(piece) < most {
			return slices.Insert(b, at, slices.Repeat(slices.Clone(piece), n)...)
		}
	case 4:
		return slices.Insert(b, at, []byte(tokens[r.IntN(len(tokens))])...)
	case 5:
		return slices.Replace(b, at, end, []byte(tokens[r.IntN(len(tokens))])...)
	case 6: // a piece of another
		o := corpus[r.IntN(len(corpus))]
		from := r.IntN(len(o) + 1)
		if piece := o[from : from+r.IntN(len(o)-from+1)]; len(b)+len(piece) < most {
			return slices.Insert(b, at, piece...)
		}
	case 7:
		return b[:at]
	}
	return b
}

// Limit is what a single input may cost, in time of one CPU.
const Limit = time.Second * slower

// Cost is what inputs cost.
type Cost struct {
	Tried int
	Worst time.Duration
}

// String says it for the scoreboard.
func (c Cost) String() string {
	return fmt.Sprintf("no crash, the slowest took %v", c.Worst.Round(time.Millisecond))
}

// Each runs fn on n inputs that next makes, or fewer when the time is over. An input that crashes, or costs more than Limit
// fails the test, which shows it.
func Each[T any](t testing.TB, n int, timeout time.Duration, next func() T, fn func(T)) (c Cost) {
	t.Helper()
	for end := time.Now().Add(timeout); c.Tried < n && time.Now().Before(end); c.Tried++ {
		in := next()
		c.Worst = max(c.Worst, Once(t, in, fn))
		if t.Failed() {
			t.Fatalf("with %s", show(in))
		}
	}
	return c
}

// Once runs fn on one input and returns what it cost: time of the processor, since a busy machine makes everything slow.
func Once[T any](t testing.TB, in T, fn func(T)) time.Duration {
	t.Helper()
	defer func() {
		if p := recover(); p != nil {
			t.Fatalf("panic: %v, with %s", p, show(in))
		}
	}()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := threadTime(t)
	fn(in)
	took := threadTime(t) - start
	if took > Limit {
		t.Errorf("took %v", took)
	}
	return took
}

// threadTime is how long this thread has run.
func threadTime(t testing.TB) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

func show(in any) string {
	s := fmt.Sprintf("%q", in)
	return s[:min(len(s), 4000)]
}
