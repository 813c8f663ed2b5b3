// Package e2e holds the end-to-end tests: real agents, the real CNI plugin and CLI, in clusters of network namespaces. They
// need root, and skip with a reason without it. Each cleans up, also when it fails; what a killed run left goes with the
// next one.
package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hypha-net/hypha/internal/lab"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// envBin names a directory with binaries to test, for a machine without Go.
const envBin = "HYPHA_E2E_BIN"

// bin are the binaries under test, built once per run.
var bin lab.Binaries

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run() // everything skips
	}
	var err error
	if dir := os.Getenv(envBin); dir != "" {
		if bin, err = lab.FindBinaries(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}
	var remove func()
	if bin, remove, err = cluster.Build(filepath.Join("..", "..")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer remove()
	return m.Run()
}
