package image

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// Program adds a program of this machine, found as a shell would, at /usr/bin, with the libraries that it loads.
func (t *Tree) Program(ctx context.Context, name string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		return fmt.Errorf("add program: %w", err)
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("add program: %w", err)
	}
	t.Copy("usr/bin/"+filepath.Base(name), 0o755, real)
	out, err := exec.CommandContext(ctx, "ldd", real).CombinedOutput()
	if err != nil {
		if strings.Contains(string(out), "not a dynamic executable") {
			return nil
		}
		return fmt.Errorf("ask for the libraries of %s: %w: %s", path, err, strings.TrimSpace(string(out)))
	}
	for lib := range strings.FieldsSeq(string(out)) {
		if !filepath.IsAbs(lib) || t.Has(lib) {
			continue
		}
		if real, err = filepath.EvalSymlinks(lib); err != nil {
			return fmt.Errorf("add library: %w", err)
		}
		t.Copy(lib, 0o755, real) // under the name that the linker looks for
	}
	return nil
}
