package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// event is a line of `go tool test2json`.
type event struct {
	Action  string
	Test    string
	Output  string
	Elapsed float64
}

// goTest is a test as its events tell it.
type goTest struct {
	action  string // that ended it
	seconds float64
	output  []string
	parent  bool
}

// readTests reads the tests below a top one: those that have none below themselves are specs, and of the others those that failed by
// themselves. What fails where the machine lacks something that it needs counts as skipped for that reason.
func readTests(r io.Reader, top string, lacking []lack) ([]spec, error) {
	all, err := collect(r)
	if err != nil {
		return nil, err
	}
	var out []spec
	for name, t := range all {
		if name != top && !strings.HasPrefix(name, top+"/") || t.parent && (t.action != "fail" || belowFailed(all, name)) {
			continue
		}
		s := spec{name: strings.ReplaceAll(cmp.Or(strings.TrimPrefix(name, top+"/"), top), "_", " "), reason: strings.Join(t.output, " "), seconds: t.seconds}
		switch t.action {
		case "pass":
			s.outcome, s.reason = passed, ""
		case "skip":
			s.outcome = skipped
		case "fail":
			s.outcome = failed
		default:
			s.outcome, s.reason = failed, "did not end"
		}
		if s.outcome == failed {
			if i := slices.IndexFunc(lacking, func(l lack) bool { return l.explains(t.output) }); i >= 0 {
				s.outcome, s.reason = skipped, lacking[i].reason
			}
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		return nil, errors.New("no test was run")
	}
	slices.SortFunc(out, func(a, b spec) int { return cmp.Compare(a.name, b.name) })
	return out, nil
}

func collect(r io.Reader) (map[string]*goTest, error) {
	all := map[string]*goTest{}
	for d := json.NewDecoder(r); ; {
		var e event
		err := d.Decode(&e)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the events of tests: %w", err)
		}
		if e.Test == "" {
			continue
		}
		t := all[e.Test]
		if t == nil {
			t = &goTest{}
			all[e.Test] = t
			if i := strings.LastIndexByte(e.Test, '/'); i >= 0 && all[e.Test[:i]] != nil {
				all[e.Test[:i]].parent = true
			}
		}
		switch e.Action {
		case "output":
			if line := strings.TrimSpace(e.Output); !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
				t.output = append(t.output, line)
			}
		case "pass", "fail", "skip":
			t.action, t.seconds = e.Action, e.Elapsed
		}
	}
}

// belowFailed says whether a test below this one failed or did not end.
func belowFailed(all map[string]*goTest, name string) bool {
	for n, t := range all {
		if strings.HasPrefix(n, name+"/") && t.action != "pass" && t.action != "skip" {
			return true
		}
	}
	return false
}
