// Command scoreboard writes what a run of the reliability cases came to into docs/reliability.md, between its markers.
//
//	go run ./test/scoreboard ROWS.jsonl docs/reliability.md
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/testutil/score"
)

const (
	begin = "<!-- scoreboard:begin -->\n"
	end   = "<!-- scoreboard:end -->"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: scoreboard ROWS.jsonl DOCUMENT.md")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "scoreboard:", err)
		os.Exit(1)
	}
}

func run(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	rows, err := read(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	doc, err := os.ReadFile(to)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(doc), begin)
	_, tail, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return fmt.Errorf("%s: no %s", to, strings.TrimSpace(begin))
	}
	return os.WriteFile(to, []byte(head+begin+table(rows)+end+tail), 0o644)
}

// read takes the newest row of each test.
func read(r io.Reader) ([]score.Row, error) {
	newest := map[string]score.Row{}
	for d := json.NewDecoder(r); ; {
		var row score.Row
		err := d.Decode(&row)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		newest[row.Case+" "+row.Test] = row
	}
	if len(newest) == 0 {
		return nil, errors.New("no case was run")
	}
	rows := make([]score.Row, 0, len(newest))
	for _, row := range newest {
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b score.Row) int {
		return cmp.Or(cmp.Compare(rank(a.Case), rank(b.Case)), cmp.Compare(a.Case, b.Case), cmp.Compare(a.Test, b.Test))
	})
	return rows, nil
}

// rank puts numbered cases first, by number.
func rank(c string) int {
	if n, err := strconv.Atoi(c); err == nil {
		return n
	}
	return 1 << 20
}

func table(rows []score.Row) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Run of %s on Linux %s, %d CPUs, %s.\n\n", time.Now().UTC().Format(time.DateOnly), release(), runtime.NumCPU(), runtime.Version())
	b.WriteString("| case | what | N | result | outcome | seed | took | test |\n| --- | --- | ---: | --- | --- | --- | ---: | --- |\n")
	for _, r := range rows {
		outcome, seed := r.Outcome, ""
		if r.Outcome != "pass" {
			outcome = "**" + r.Outcome + "**"
		}
		if !r.Full {
			outcome += " (quick size)"
		}
		if r.Seed != 0 {
			seed = strconv.FormatUint(r.Seed, 10)
		}
		fmt.Fprintf(&b, "| %s | %s | %d %s | %s | %s | %s | %v | `%s` |\n", r.Case, cell(r.What), r.N, r.Unit, cell(r.Result), outcome, seed,
			r.Took.Round(100*time.Millisecond), r.Test)
	}
	return b.String()
}

// cell is text that stays in its cell.
func cell(s string) string { return strings.NewReplacer("|", "\\|", "\n", " ").Replace(s) }

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "?"
	}
	return unix.ByteSliceToString(u.Release[:])
}
