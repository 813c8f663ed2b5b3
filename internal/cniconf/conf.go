// Package cniconf puts the CNI plugin where a container runtime looks for it: its program, and the network configuration that
// names it. Both appear by rename, so a runtime never reads half of one. It owns the file it is told to write and, if it is the
// only network, sets the others aside under a name that runtimes do not read; Remove gives them back.
package cniconf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Plugin is the name of the program.
const Plugin = "hypha-cni"

// aside is the ending of configurations that are set aside, the field's own: others' tools know it.
const aside = ".cilium_bak"

// Config says what to write.
type Config struct {
	Path      string // of the configuration, *.conflist
	Exclusive bool   // no other network
	StateDir  string // of the agent
	NodeName  string // of the agent
	LogFile   string // of the plugin; "": none
}

// content is the network configuration (CNI specification 1.0, which every runtime of today reads).
func (c *Config) content() ([]byte, error) {
	plugin := map[string]any{"type": Plugin, "stateDir": c.StateDir, "nodeName": c.NodeName}
	if c.LogFile != "" {
		plugin["logFile"] = c.LogFile
	}
	b, err := json.MarshalIndent(map[string]any{"cniVersion": "1.0.0", "name": "cilium", "plugins": []any{plugin}}, "", "  ")
	return append(b, '\n'), err
}

// Write puts the configuration in place, if it is not there as it should be, and then sets others aside. It may be called
// again and again.
func (c *Config) Write() error {
	want, err := c.content()
	if err != nil {
		return fmt.Errorf("write CNI configuration: %w", err)
	}
	if have, err := os.ReadFile(c.Path); err != nil || !bytes.Equal(have, want) {
		if err := place(c.Path, bytes.NewReader(want), 0o600); err != nil {
			return fmt.Errorf("write CNI configuration: %w", err)
		}
	}
	if !c.Exclusive {
		return nil
	}
	others, err := c.others("")
	if err != nil {
		return err
	}
	for _, o := range others {
		if err := os.Rename(o, o+aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set other CNI configuration aside: %w", err)
		}
	}
	return nil
}

// Remove gives back what was set aside and then takes the configuration away.
func (c *Config) Remove() error {
	var failed error
	if c.Exclusive {
		others, err := c.others(aside)
		failed = err
		for _, o := range others {
			if err := os.Rename(o, strings.TrimSuffix(o, aside)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				failed = errors.Join(failed, fmt.Errorf("give other CNI configuration back: %w", err))
			}
		}
	}
	if err := os.Remove(c.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		failed = errors.Join(failed, fmt.Errorf("remove CNI configuration: %w", err))
	}
	return failed
}

// others are the configurations beside ours whose names end as those that runtimes read, and then in suffix.
func (c *Config) others(suffix string) ([]string, error) {
	dir := filepath.Dir(c.Path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("look for other CNI configurations: %w", err)
	}
	var out []string
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || e.IsDir() || e.Name() == filepath.Base(c.Path) {
			continue
		}
		switch filepath.Ext(name) {
		case ".conf", ".conflist", ".json":
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out, nil
}
