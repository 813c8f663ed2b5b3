package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"
)

// A result is what a check came to on a kernel.
type result struct {
	check   string
	ended   bool // else the machine stopped, or hung, meanwhile
	code    int  // exit code
	took    time.Duration
	passed  int               // tests
	failed  []string          // tests
	skipped []string          // tests that the kernel cannot run, with the reason they gave
	attrs   map[string]string // what tests told by testing.T.Attr
	output  []string
}

// ok says whether the check passed. A test may skip itself for what the kernel lacks, for nothing else.
func (r *result) ok() bool {
	for _, s := range r.skipped {
		if !strings.Contains(s, "kernel") {
			return false
		}
	}
	return r.ended && r.code == 0 && len(r.failed) == 0
}

// line is the result in one line.
func (r *result) line() string {
	if !r.ended {
		return "did not end"
	}
	word := "ok"
	if !r.ok() {
		word = "FAILED"
	}
	text := fmt.Sprintf("%-7s %6.1fs", word, r.took.Seconds())
	if r.passed > 0 {
		text += fmt.Sprintf("  %d tests", r.passed)
	}
	if r.code != 0 {
		text += fmt.Sprintf("  exit code %d", r.code)
	}
	for _, f := range r.failed {
		text += "  failed: " + f
	}
	for _, s := range r.skipped {
		text += "  skipped: " + s
	}
	return text
}

// A run is what a kernel said.
type run struct {
	release string
	trouble []string
	results []*result
}

// read follows the output of run.sh; each result is told once it is there.
func read(from io.Reader, told func(*result)) (*run, error) {
	var r run
	var now *result
	var began time.Time
	in := bufio.NewScanner(from)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		line := strings.TrimRight(in.Text(), "\r")
		_, mark, ok := strings.Cut(line, "@@ ")
		word, rest, _ := strings.Cut(mark, " ")
		switch {
		case ok && word == "kernel":
			r.release = rest
		case ok && word == "trouble":
			r.trouble = append(r.trouble, rest)
		case ok && word == "begin":
			now, began = &result{check: rest, attrs: map[string]string{}}, time.Now()
			r.results = append(r.results, now)
		case ok && word == "end" && now != nil:
			_, _ = fmt.Sscan(strings.TrimPrefix(rest, now.check), &now.code)
			now.ended, now.took = true, time.Since(began)
			now.understand()
			told(now)
			now = nil
		case now != nil:
			now.output = append(now.output, line)
		}
	}
	if now != nil {
		now.understand()
		told(now)
	}
	return &r, in.Err()
}

// understand reads the output of `go test -v`. Only whole tests count, not their parts; reasons of skips are in the line
// before or after, as the version of Go has it.
func (r *result) understand() {
	last := ""
	for i, line := range r.output {
		switch f := strings.Fields(line); {
		case len(f) >= 3 && f[0] == "---" && f[1] == "PASS:" && line[0] == '-':
			r.passed++
		case len(f) >= 3 && f[0] == "---" && f[1] == "FAIL:":
			r.failed = append(r.failed, f[2])
		case len(f) >= 3 && f[0] == "---" && f[1] == "SKIP:":
			reason := last
			if !strings.Contains(reason, "_test.go:") && i+1 < len(r.output) {
				reason = r.output[i+1]
			}
			if _, text, ok := strings.Cut(reason, "_test.go:"); ok {
				_, reason, _ = strings.Cut(text, ": ")
			}
			r.skipped = append(r.skipped, f[2]+" ("+strings.TrimSpace(reason)+")")
		case len(f) >= 5 && f[0] == "===" && f[1] == "ATTR":
			r.attrs[f[3]] = strings.Join(f[4:], " ")
		}
		last = line
	}
}

// ok says whether this many checks were made and all passed.
func (r *run) ok(checks int) bool {
	if len(r.trouble) > 0 || len(r.results) != checks {
		return false
	}
	for _, c := range r.results {
		if !c.ok() {
			return false
		}
	}
	return true
}
