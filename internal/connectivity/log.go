package connectivity

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/hypha-net/hypha/internal/escape"
)

// Log writes lines for the user, of several goroutines.
type Log struct {
	Stamps bool // each line begins with the time

	mu  sync.Mutex
	out io.Writer
	mid bool // in the middle of a line of dots
}

// NewLog writes to out.
func NewLog(out io.Writer, stamps bool) *Log { return &Log{Stamps: stamps, out: out} }

// Line writes one line, or several, the first with a mark in front. What workloads may have made up is escaped.
func (l *Log) Line(mark, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mid {
		_, _ = fmt.Fprintln(l.out)
		l.mid = false
	}
	for line := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
		if l.Stamps {
			_, _ = fmt.Fprintf(l.out, "[%s] ", time.Now().Format(time.RFC3339))
		}
		_, _ = fmt.Fprintln(l.out, mark+escape.Text(line))
		mark = strings.Repeat(" ", len(mark)-len(strings.TrimLeft(mark, " ")))
	}
}

// Dot shows that something went well.
func (l *Log) Dot() {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = io.WriteString(l.out, ".")
	l.mid = true
}
