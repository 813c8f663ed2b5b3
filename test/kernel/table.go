package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/hypha-net/hypha/internal/doctor"
)

const (
	begin = "<!-- kernels:begin -->\n"
	end   = "<!-- kernels:end -->"
	limit = 1000000 // instructions that the verifier looks at before it gives up
)

// machineChecks are doctor's lines about the machine rather than its kernel.
var machineChecks = []string{"privileges", "kernel", "jit", "bpffs", "capabilities", "lockdown", "memory", "overlay port", "other pod networks", "cni plugin"}

// writeTables puts what the runs came to into a document, between its markers.
func writeTables(path string, runs []*run) error {
	doc, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(doc), begin)
	_, tail, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return fmt.Errorf("%s: no %s", path, strings.TrimSpace(begin))
	}
	offers, err := offerTable(runs)
	if err != nil {
		return err
	}
	text := "### Checks\n\n" + checkTable(runs) + "\n### What the verifier makes of the programs\n\n" +
		"Instructions looked at, in the configuration that needs most, and the part of the verifier's limit of a million.\n\n" +
		verifierTable(runs) + "\n### What `hypha doctor` finds\n\n" + offers
	return os.WriteFile(path, []byte(head+begin+text+end+tail), 0o644)
}

// version is a kernel's release without what its packager adds to it.
func (r *run) version() string {
	v, _, _ := strings.Cut(r.Release, "-")
	v, _, _ = strings.Cut(v, "+")
	return v
}

// table lays rows out under one column a run.
func table(runs []*run, what string, rows []string, cell func(r *run, row string) string) string {
	var b strings.Builder
	b.WriteString("| " + what + " |")
	for _, r := range runs {
		b.WriteString(" " + r.version() + " |")
	}
	b.WriteString("\n| --- |" + strings.Repeat(" --- |", len(runs)) + "\n")
	for _, row := range rows {
		b.WriteString("| " + row + " |")
		for _, r := range runs {
			b.WriteString(" " + cell(r, row) + " |")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func checkTable(runs []*run) string {
	var rows, notes []string
	for _, c := range checks {
		rows = append(rows, c.name)
	}
	rows = append(rows, clock.name, reboot.name)
	text := table(runs, "check", rows, func(r *run, row string) string {
		c := r.result(row)
		if c == nil {
			return "not made"
		}
		word := "ok"
		if !c.ok() {
			word = "**failed**"
		}
		if c.Passed > 0 {
			word += fmt.Sprintf(", %d tests", c.Passed)
		}
		for _, s := range c.Skipped {
			if note := row + ": " + s; !slices.Contains(notes, note) {
				notes = append(notes, note)
			}
			word += fmt.Sprintf(" (%d)", slices.Index(notes, row+": "+s)+1)
		}
		return word
	})
	var b strings.Builder
	for i, n := range notes {
		fmt.Fprintf(&b, "\n(%d) %s\n", i+1, n)
	}
	return text + b.String()
}

func verifierTable(runs []*run) string {
	var rows []string
	for _, r := range runs {
		if c := r.result("verifier"); c != nil {
			for program := range c.Attrs {
				if !slices.Contains(rows, program) {
					rows = append(rows, program)
				}
			}
		}
	}
	slices.Sort(rows)
	return table(runs, "program", rows, func(r *run, row string) string {
		c := r.result("verifier")
		if c == nil {
			return "not made"
		}
		n, err := strconv.Atoi(c.Attrs[row])
		if err != nil {
			return "does not load"
		}
		return fmt.Sprintf("%d (%.1f %%)", n, float64(n)*100/limit)
	})
}

// offerTable is what the kernels have and lack.
func offerTable(runs []*run) (string, error) {
	found := map[*run]map[string]doctor.Check{}
	var rows []string
	for _, r := range runs {
		found[r] = map[string]doctor.Check{}
		c := r.result("doctor")
		if c == nil {
			continue
		}
		var report doctor.Report
		if err := json.Unmarshal([]byte(strings.Join(c.Output, "\n")), &report); err != nil {
			return "", fmt.Errorf("%s: what doctor says is not understood: %w", r.Release, err)
		}
		for _, d := range report.Checks {
			found[r][d.Name] = d
			if !slices.Contains(rows, d.Name) && !slices.Contains(machineChecks, d.Name) {
				rows = append(rows, d.Name)
			}
		}
	}
	return table(runs, "", rows, func(r *run, row string) string {
		d, asked := found[r][row]
		switch {
		case !asked:
			return "not asked"
		case d.OK:
			return "yes"
		case d.Required:
			return "**missing**"
		}
		return "no"
	}), nil
}
