package endpoint_test

import (
	"bytes"
	"os"
	"testing"
)

// flip replaces text in a file, leaving its checksum as it was.
func flip(t *testing.T, path, from, to string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.ReplaceAll(data, []byte(from), []byte(to))
	if bytes.Equal(changed, data) {
		changed = bytes.Replace(data, []byte(`"id"`), []byte(`"ix"`), 1)
	}
	if bytes.Equal(changed, data) {
		t.Fatalf("%s has no %q", path, from)
	}
	if err := os.WriteFile(path, changed, 0o600); err != nil {
		t.Fatal(err)
	}
}
