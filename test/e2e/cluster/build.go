package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/hypha-net/hypha/internal/lab"
	"github.com/hypha-net/hypha/internal/netns"
)

// Build builds the binaries under test out of the module's root. remove deletes them; what a killed run leaves goes with the
// next Sweep.
func Build(root string) (bin lab.Binaries, remove func(), err error) {
	name, err := netns.TempName("bin") // names its owner
	if err != nil {
		return bin, nil, err
	}
	dir := filepath.Join(os.TempDir(), name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return bin, nil, fmt.Errorf("build the binaries: %w", err)
	}
	cmd := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "./cmd/...")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err == nil {
		bin, err = lab.FindBinaries(dir)
	}
	if err != nil {
		return bin, nil, errors.Join(fmt.Errorf("build the binaries: %w\n%s", err, out), os.RemoveAll(dir))
	}
	return bin, func() { _ = os.RemoveAll(dir) }, nil
}
