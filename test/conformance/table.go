package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// write puts what a group came to between its marks in a document; all else of it stays.
func write(file string, g group, version string, procs int, specs []spec) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	begin, end := "<!-- "+g.name+":begin -->\n", "<!-- "+g.name+":end -->"
	before, rest, opened := bytes.Cut(text, []byte(begin))
	_, after, closed := bytes.Cut(rest, []byte(end))
	if !opened || !closed {
		return fmt.Errorf("%s has no place for the results of %s: no %s", file, g.name, strings.TrimSpace(begin))
	}
	head := fmt.Sprintf("%s %s on %s: %s. Linux %s, %d CPUs, %d at a time.\n\n", g.module, version, time.Now().UTC().Format(time.DateOnly), count(specs),
		release(), runtime.NumCPU(), procs)
	part := part(file + ".part")
	return errors.Join(part.write(before, []byte(begin+head+table(specs)+end), after), part.become(file))
}

// part is a file that becomes another at once.
type part string

func (p part) write(pieces ...[]byte) error {
	return os.WriteFile(string(p), bytes.Join(pieces, nil), 0o644)
}

func (p part) become(file string) error { return os.Rename(string(p), file) }

// table has failures and skips first, each with its reason.
func table(specs []spec) string {
	var b strings.Builder
	b.WriteString("| spec | result | seconds |\n| --- | --- | ---: |\n")
	for _, outcome := range []string{failed, skipped, passed} {
		for _, s := range specs {
			if s.outcome != outcome {
				continue
			}
			result := s.outcome
			if s.outcome != passed {
				result = "**" + s.outcome + "**: " + cell(s.reason)
			}
			fmt.Fprintf(&b, "| %s | %s | %.0f |\n", cell(s.name), result, s.seconds)
		}
	}
	return b.String()
}

// longest is how much of a reason is told.
const longest = 300

// cell is text that stays in its cell of a table and means nothing else there.
func cell(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > longest {
		s = string(r[:longest]) + "…"
	}
	return strings.NewReplacer("|", "\\|", "<", "&lt;", "*", "\\*", "_", "\\_", "`", "'").Replace(s)
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "?"
	}
	version, _, _ := strings.Cut(unix.ByteSliceToString(u.Release[:]), "-") // what follows names a build
	return version
}
