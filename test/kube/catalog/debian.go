package catalog

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Debian is a directory of its packages, unpacked: those that images take something from and this machine need not have installed.
type Debian string

// file is a file of a package, which is fetched if it is not there yet.
func (d Debian) file(ctx context.Context, pkg, path string) (string, error) {
	dir, err := filepath.Abs(filepath.Join(string(d), pkg))
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, path)
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "sh", "-ec", `apt-get -qq -o APT::Sandbox::User=root download "$0"; dpkg -x "$0"_*.deb .; rm "$0"_*.deb`, pkg)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("fetch Debian's package %s: %w: %s", pkg, err, out)
	}
	return file, nil
}
