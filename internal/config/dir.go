package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// readDir reads a directory of options as Kubernetes mounts a ConfigMap: a file for each, its name the option's and its
// content the value. What starts with a dot is how the mount keeps its versions.
func readDir(dir string) (map[string]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read configuration directory: %w", err)
	}
	values := map[string]string{}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		path := filepath.Join(dir, e.Name())
		info, err := os.Stat(path) // a link, usually
		if err != nil {
			return nil, fmt.Errorf("read configuration directory: %w", err)
		}
		if !info.Mode().IsRegular() {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read configuration directory: %w", err)
		}
		values[e.Name()] = strings.TrimSpace(string(b))
	}
	return values, nil
}
