package machine

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// system are the directories of programs, which machines share with the real one: directories there, or symbolic links into /usr.
var system = []string{"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"}

// settled are files of /etc that a machine has copies of, where the real one has them.
var settled = []string{"passwd", "group", "nsswitch.conf", "protocols", "services", "ld.so.cache", "os-release"}

// shared are directories of /etc that a machine looks at.
var shared = []string{"/etc/alternatives", "/etc/ssl"}

// Furnish makes the root directory of a machine.
func Furnish(root, name string) error {
	for dir, mode := range map[string]fs.FileMode{
		"etc": 0o755, "var/log": 0o755, "var/lib": 0o755, "var/tmp": fs.ModeSticky | 0o777, "run": 0o755, "opt": 0o755, "root": 0o700,
		"tmp": fs.ModeSticky | 0o777, "proc": 0o755, "sys": 0o755, "dev": 0o755,
	} {
		path := filepath.Join(root, dir)
		if err := errors.Join(os.MkdirAll(path, 0o755), os.Chmod(path, mode)); err != nil {
			return fmt.Errorf("furnish machine %s: %w", name, err)
		}
	}
	if err := os.Symlink("../run", filepath.Join(root, "var", "run")); err != nil {
		return fmt.Errorf("furnish machine %s: %w", name, err)
	}
	for _, dir := range system {
		to, err := os.Readlink("/" + dir)
		if err != nil {
			continue // a directory, or nothing
		}
		if err := os.Symlink(to, filepath.Join(root, dir)); err != nil {
			return fmt.Errorf("furnish machine %s: %w", name, err)
		}
	}
	id := sha256.Sum256([]byte(root))
	files := map[string][]byte{
		"hostname":   []byte(name + "\n"),
		"machine-id": []byte(hex.EncodeToString(id[:16]) + "\n"),
		"hosts":      []byte("127.0.0.1 localhost\n::1 localhost\n"),
	}
	for _, f := range settled {
		b, err := os.ReadFile("/etc/" + f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("furnish machine %s: %w", name, err)
		}
		files[f] = b
	}
	for f, b := range files {
		if err := os.WriteFile(filepath.Join(root, "etc", f), b, 0o644); err != nil {
			return fmt.Errorf("furnish machine %s: %w", name, err)
		}
	}
	return nil
}
