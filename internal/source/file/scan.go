package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// tempAge is how old a temporary file must be before a scan takes it for one that a killed process left.
const tempAge = time.Hour

// Names lists the state files of a directory by name, sorted: regular files that end in suffix (".json"), without those
// that were set aside, temporary ones and dot files. A directory that is not there has none. Temporary files that a
// killed process left are removed.
func Names(dir, suffix string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("scan state: %w", err)
	}
	var names []string
	for _, e := range entries {
		switch name := e.Name(); {
		case !e.Type().IsRegular():
		case strings.HasPrefix(name, ".") && strings.Contains(name, tempInfix):
			if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > tempAge {
				_ = os.Remove(filepath.Join(dir, name)) // harmless where it is
			}
		case !hidden(name) && strings.HasSuffix(name, suffix):
			names = append(names, name)
		}
	}
	return names, nil
}

// ScanJSON reads every state file of a directory, by file name. Files that cannot be read do not keep the others from
// being read: the error joins what is wrong with each (see ReadJSON), and the map holds the good ones.
func ScanJSON[T any](dir, suffix string) (map[string]T, error) {
	names, err := Names(dir, suffix)
	if err != nil {
		return nil, err
	}
	out := make(map[string]T, len(names))
	var bad error
	for _, name := range names {
		var v T
		if err := ReadJSON(filepath.Join(dir, name), &v); err != nil {
			bad = errors.Join(bad, err)
			continue
		}
		out[name] = v
	}
	return out, bad
}

// Sweep removes the temporary files that a killed process left in a directory. Nobody may be writing there.
func Sweep(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, ".*"+tempInfix+"*"))
	for _, f := range left {
		if rerr := os.Remove(f); !errors.Is(rerr, syscall.EROFS) { // a disk that takes no writes keeps no agent from starting
			err = errors.Join(err, rerr)
		}
	}
	if err != nil {
		return fmt.Errorf("sweep state: %w", err)
	}
	return nil
}
