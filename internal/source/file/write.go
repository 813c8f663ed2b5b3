// Package file keeps an agent's state in files: each is written whole to a temporary file beside it and renamed, so a
// reader sees the old content or the new one. JSON files carry a checksum; one that does not read back is set aside as
// `<name>.damaged`, never trusted. The package knows nothing about what is in the files.
package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Suffix of files that were set aside and infix of temporary ones. Scans skip both.
const (
	damagedSuffix = ".damaged"
	tempInfix     = ".tmp-"
)

// Write replaces path by data, durably: when it returns nil, the new content survives a power cut. On failure the old
// content stands and no temporary file is left. Missing parent directories are made, 0700.
func Write(path string, data []byte, mode fs.FileMode) error { return write(path, data, mode, true) }

// Replace is Write without waiting for the disk: atomic for readers and across a kill of the process, but after a power
// cut the file may be old, or damaged (which ReadJSON notices). For state that a reboot makes void anyway.
func Replace(path string, data []byte, mode fs.FileMode) error {
	return write(path, data, mode, false)
}

func write(path string, data []byte, mode fs.FileMode, sync bool) error {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	f, err := os.CreateTemp(dir, "."+base+tempInfix)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
		f, err = os.CreateTemp(dir, "."+base+tempInfix)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, cause(err))
	}
	tmp := f.Name()
	err = fill(f, data, mode, sync)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(cause(err), cause(os.Remove(tmp))))
	}
	if !sync {
		return nil
	}
	if err := syncDir(dir); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// cause is an error without the temporary file's name: that is another one each time, and nobody's business.
func cause(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	if l, ok := errors.AsType[*os.LinkError](err); ok {
		return l.Err
	}
	return err
}

func fill(f *os.File, data []byte, mode fs.FileMode, sync bool) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil && sync {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Remove deletes path, durably. That it was not there is no error.
func Remove(path string) error {
	if err := os.Remove(path); err != nil {
		if _, lerr := os.Lstat(path); errors.Is(lerr, fs.ErrNotExist) { // a read-only disk does not say so of itself
			return nil
		}
		return fmt.Errorf("remove file: %w", err)
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// hidden says whether a file of this name is none of the state: set aside, temporary, or otherwise a dot file.
func hidden(name string) bool {
	return strings.HasPrefix(name, ".") || strings.Contains(name, damagedSuffix)
}
