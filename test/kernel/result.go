package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// A result is what a check came to on a kernel.
type result struct {
	Check   string
	Ended   bool // else the machine stopped, or hung, meanwhile
	Code    int  // exit code
	Took    time.Duration
	Passed  int               // tests
	Failed  []string          // tests
	Skipped []string          // tests that the kernel cannot run, with the reason they gave
	Attrs   map[string]string // what tests told by testing.T.Attr
	Output  []string
}

// ok says whether the check passed. A test may skip itself for what the kernel lacks, for nothing else.
func (r *result) ok() bool {
	for _, s := range r.Skipped {
		if !strings.Contains(s, "kernel") {
			return false
		}
	}
	return r.Ended && r.Code == 0 && len(r.Failed) == 0
}

// line is the result in one line.
func (r *result) line() string {
	if !r.Ended {
		return "did not end"
	}
	word := "ok"
	if !r.ok() {
		word = "FAILED"
	}
	text := []string{fmt.Sprintf("%-7s %6.1fs", word, r.Took.Seconds())}
	if r.Passed > 0 {
		text = append(text, fmt.Sprintf("%d tests", r.Passed))
	}
	if r.Code != 0 {
		text = append(text, fmt.Sprintf("exit code %d", r.Code))
	}
	for _, f := range r.Failed {
		text = append(text, "failed: "+f)
	}
	for _, s := range r.Skipped {
		text = append(text, "skipped: "+s)
	}
	return strings.Join(text, "  ")
}

// A run is what a kernel said.
type run struct {
	Release string
	Trouble []string
	Results []*result
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
			r.Release = rest
		case ok && word == "trouble":
			r.Trouble = append(r.Trouble, rest)
		case ok && word == "begin":
			now, began = &result{Check: rest, Attrs: map[string]string{}}, time.Now()
			r.Results = append(r.Results, now)
		case ok && word == "end" && now != nil:
			_, _ = fmt.Sscan(strings.TrimPrefix(rest, now.Check), &now.Code)
			now.Ended, now.Took = true, time.Since(began)
			now.understand()
			told(now)
			now = nil
		case now != nil:
			now.Output = append(now.Output, line)
		}
	}
	if now != nil {
		now.understand()
		told(now)
	}
	return &r, in.Err()
}

// understand reads the output of `go test -v`. Only whole tests count as passed, not their parts. The reason of a skip is the
// last that the test said.
func (r *result) understand() {
	said, test := map[string]string{}, ""
	for _, line := range r.Output {
		f := strings.Fields(line)
		switch {
		case len(f) >= 5 && f[0] == "===" && f[1] == "ATTR":
			r.Attrs[f[3]] = strings.Join(f[4:], " ")
		case len(f) >= 3 && f[0] == "===":
			test = f[2]
		case len(f) >= 3 && f[0] == "---" && f[1] == "PASS:" && line[0] == '-':
			r.Passed++
		case len(f) >= 3 && f[0] == "---" && f[1] == "FAIL:":
			r.Failed = append(r.Failed, f[2])
		case len(f) >= 3 && f[0] == "---" && f[1] == "SKIP:":
			r.Skipped = append(r.Skipped, f[2]+" ("+said[f[2]]+")")
		case strings.Contains(line, "_test.go:"):
			_, text, _ := strings.Cut(line, "_test.go:")
			_, said[test], _ = strings.Cut(text, ": ")
		}
	}
}

// ok says whether this many checks were made and all passed.
func (r *run) ok(checks int) bool {
	if len(r.Trouble) > 0 || len(r.Results) != checks {
		return false
	}
	for _, c := range r.Results {
		if !c.ok() {
			return false
		}
	}
	return true
}

// result is that of a check; nil when it was not made.
func (r *run) result(check string) *result {
	for _, c := range r.Results {
		if c.Check == check {
			return c
		}
	}
	return nil
}

// save keeps a run for the tables: the checks of this one, and those of the run before that this one did not make.
func (r *run) save(path string) error {
	if old, err := load(path); err == nil && old.Release == r.Release {
		for _, c := range old.Results {
			if r.result(c.Check) == nil {
				r.Results = append(r.Results, c)
			}
		}
	}
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}

// load reads what save wrote.
func load(path string) (*run, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &run{}
	return r, json.Unmarshal(b, r)
}
