package cniconf

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// place writes a file beside its path and renames it there. A name that starts with a dot is read by no runtime.
func place(path string, content io.Reader, mode os.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = io.Copy(f, content)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Install copies the plugin's program into a directory of CNI plugins. One that is running there goes on as it was.
func Install(program, dir string) error {
	in, err := os.Open(program)
	if err != nil {
		return fmt.Errorf("install CNI plugin: %w", err)
	}
	defer func() { _ = in.Close() }()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("install CNI plugin: %w", err)
	}
	if err := place(filepath.Join(dir, Plugin), in, 0o755); err != nil {
		return fmt.Errorf("install CNI plugin: %w", err)
	}
	return nil
}
