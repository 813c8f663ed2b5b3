package host

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
)

// record is what the node had before Apply, in a file.
type record struct {
	Sysctls map[string]string `json:"sysctls"` // path under /proc/sys -> value
	Routers []netip.Addr      `json:"routers"` // addresses that Apply put on lo
}

// readRecord reads the file; absent is empty. A damaged one is set aside: what it held cannot be restored any more.
func readRecord(path string) (*record, error) {
	rec := &record{Sysctls: map[string]string{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return rec, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read record of the node's settings: %w", err)
	}
	if json.Unmarshal(b, rec) != nil {
		if err := os.Rename(path, path+".damaged"); err != nil {
			return nil, fmt.Errorf("set damaged record aside: %w", err)
		}
		rec = &record{}
	}
	if rec.Sysctls == nil {
		rec.Sysctls = map[string]string{}
	}
	return rec, nil
}

// remember notes a value, the first time.
func (r *record) remember(path string) error {
	if _, ok := r.Sysctls[path]; ok {
		return nil
	}
	v, err := get(path)
	if err != nil {
		return fmt.Errorf("read sysctl: %w", err)
	}
	r.Sysctls[path] = v
	return nil
}

func (r *record) write(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode record of the node's settings: %w", err)
	}
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, b) {
		return nil // an agent must start on a disk that takes no writes
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write record of the node's settings: %w", err)
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("write record of the node's settings: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write record of the node's settings: %w", err)
	}
	return nil
}
