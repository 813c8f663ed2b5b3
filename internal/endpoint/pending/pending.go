// Package pending keeps the notes that the CNI plugin leaves when a workload goes away while the agent is down: one
// small file per attachment, which the agent works off as soon as it runs. The plugin writes, the agent reads and
// removes; both may do so at the same time.
package pending

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hypha-net/hypha/internal/source/file"
)

// Delete is a note: this attachment is gone.
type Delete struct {
	ContainerID string    `json:"containerID"`
	IfName      string    `json:"interface"`
	Time        time.Time `json:"time"`
}

const suffix = ".json"

// Write leaves a note. Writing it again does no harm.
func Write(dir string, d Delete) error {
	if err := file.ReplaceJSON(path(dir, d.ContainerID, d.IfName), d, 0o600); err != nil {
		return fmt.Errorf("note pending delete: %w", err)
	}
	return nil
}

// List returns all notes. Those that cannot be read are set aside and do not hide the others: they are in the error.
func List(dir string) ([]Delete, error) {
	m, err := file.ScanJSON[Delete](dir, suffix)
	out := make([]Delete, 0, len(m))
	for _, d := range m {
		out = append(out, d)
	}
	return out, err
}

// Count is how many notes there are.
func Count(dir string) (int, error) {
	names, err := file.Names(dir, suffix)
	return len(names), err
}

// Exists says whether there is a note for an attachment.
func Exists(dir, containerID, ifName string) bool {
	_, err := os.Lstat(path(dir, containerID, ifName))
	return err == nil
}

// Remove takes a note away. One that is not there is no error.
func Remove(dir, containerID, ifName string) error {
	if !Exists(dir, containerID, ifName) {
		return nil // nor does a read-only disk mind
	}
	if err := os.Remove(path(dir, containerID, ifName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove pending delete: %w", err)
	}
	return nil
}

// path is named by a hash: container ids may be longer than a file name.
func path(dir, containerID, ifName string) string {
	sum := sha256.Sum256([]byte(containerID + "\x00" + ifName))
	return filepath.Join(dir, hex.EncodeToString(sum[:16])+suffix)
}
