// Package score keeps the reliability scoreboard: each case of it is a test that says here which case it is, with how many
// attempts it was tried, and what came out. `make soak` collects that into docs/reliability.md; without it the same tests run
// in quick sizes and only log their line.
package score

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// Environment of a run.
const (
	EnvFull = "HYPHA_SOAK"  // not empty: full sizes
	EnvFile = "HYPHA_SCORE" // file that gets one JSON Row per case and line
	EnvSeed = "HYPHA_SEED"  // seed of all random choices, to repeat a run
)

// Row is one line of the scoreboard.
type Row struct {
	Case    string        `json:"case"` // number in the list of cases, or the name of a published failure
	Test    string        `json:"test"`
	What    string        `json:"what"`
	N       int           `json:"n"`    // attempts, packets, pairs: what Unit says
	Unit    string        `json:"unit"` // of N
	Seed    uint64        `json:"seed,omitempty"`
	Result  string        `json:"result"`  // what was measured beside pass or fail
	Outcome string        `json:"outcome"` // pass, fail, skip
	Full    bool          `json:"full"`
	Took    time.Duration `json:"took"`
}

// Case is a case under test. Its fields may be set until the test ends.
type Case struct {
	Row
	t     testing.TB
	began time.Time
}

// Start opens a case; its row is written when the test has ended, with the outcome that the test had.
func Start(t testing.TB, number, what string) *Case {
	c := &Case{Row: Row{Case: number, Test: t.Name(), What: what, Full: Full()}, t: t, began: time.Now()}
	t.Cleanup(c.end)
	return c
}

// Count says how much was tried: N in units ("packets").
func (c *Case) Count(n int, unit string) { c.N, c.Unit = n, unit }

// Say describes what was measured: "0 resets, ready after at most 1.2 s".
func (c *Case) Say(format string, args ...any) { c.Result = fmt.Sprintf(format, args...) }

// Rand is the source of the case's random choices; its seed goes into the row.
func (c *Case) Rand() *rand.Rand {
	c.Seed = Seed(c.t)
	return rand.New(rand.NewPCG(c.Seed, 0))
}

func (c *Case) end() {
	c.Took = time.Since(c.began).Round(time.Millisecond)
	switch {
	case c.t.Failed():
		c.Outcome = "fail"
	case c.t.Skipped():
		c.Outcome = "skip"
	default:
		c.Outcome = "pass"
	}
	c.t.Logf("case %s: %s, %d %s, %s, seed %d, %v", c.Case, c.Outcome, c.N, c.Unit, c.Result, c.Seed, c.Took)
	path := os.Getenv(EnvFile)
	if path == "" {
		return
	}
	line, err := json.Marshal(c.Row)
	if err == nil {
		err = appendLine(path, line)
	}
	if err != nil {
		c.t.Errorf("write score: %v", err)
	}
}

// appendLine is one write, so that test binaries side by side do not mix their lines.
func appendLine(path string, line []byte) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

// Full says whether cases run in their full sizes.
func Full() bool { return os.Getenv(EnvFull) != "" }

// Size is a case's size: quick for every test run, full for the scoreboard.
func Size(quick, full int) int {
	if Full() {
		return full
	}
	return quick
}

// Seed is the run's seed: the one given in the environment, or a new one.
func Seed(t testing.TB) uint64 {
	t.Helper()
	text := os.Getenv(EnvSeed)
	if text == "" {
		return rand.Uint64()
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", EnvSeed, err)
	}
	return seed
}
