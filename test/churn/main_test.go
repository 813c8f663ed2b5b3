// Package churn checks from outside that a cluster converges: pods come, go and change labels, policies too, agents are killed,
// while every pair of pods probes without a pause. Each probe's fate must have been legal at some moment of its window.
package churn

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hypha-net/hypha/internal/lab"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// bin are the binaries under test, built once per run.
var bin lab.Binaries

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run() // everything skips
	}
	var remove func()
	var err error
	if bin, remove, err = cluster.Build(filepath.Join("..", "..")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer remove()
	return m.Run()
}
