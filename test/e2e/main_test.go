// Package e2e holds the end-to-end tests: real agents, the real CNI plugin and CLI, in clusters of network namespaces. They
// need root, and skip with a reason without it. Each cleans up, also when it fails; what a killed run left goes with the
// next one.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/hypha-net/hypha/internal/lab"
	"github.com/hypha-net/hypha/internal/netns"
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
	if dir := os.Getenv(envBin); dir != "" {
		var err error
		if bin, err = lab.FindBinaries(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}
	name, err := netns.TempName("bin") // names its owner: what a killed run leaves goes with the next
	dir := filepath.Join(os.TempDir(), name)
	if err == nil {
		err = os.Mkdir(dir, 0o755)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	cmd := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "./cmd/...")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the binaries: %v\n%s", err, out)
		return 1
	}
	if bin, err = lab.FindBinaries(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
