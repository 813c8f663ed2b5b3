package servicefile

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hypha-net/hypha/internal/source/file"
)

// list is a file with services at 10.96.0.1 up to n.
func list(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "- frontend: 10.96.0.%d:80\n  backends: [10.0.0.5:80]\n", i+1)
	}
	return b.String()
}

func follow(t *testing.T, path string) *File {
	f := New(path, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = f.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return f
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// holds waits until the file's table has n rows and its error this text ("": none).
func holds(t *testing.T, f *File, n int, want string) {
	t.Helper()
	var got string
	for range 1000 {
		rows, err := f.Table().Snapshot().Len(), f.Err()
		if rows == n && (err == nil && want == "" || err != nil && want != "" && strings.Contains(err.Error(), want)) {
			return
		}
		got = fmt.Sprintf("%d services, %v", rows, err)
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("%s; want %d, %q", got, n, want)
}

func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "services.yaml")
	f := follow(t, path)
	holds(t, f, 0, "no such file")
	if f.Table().Snapshot().Complete() {
		t.Error("complete without a file")
	}
	write(t, path, list(3))
	holds(t, f, 3, "")
	if !f.Table().Snapshot().Complete() {
		t.Error("not complete")
	}
	write(t, path, list(5)) // in place
	holds(t, f, 5, "")
	if err := file.Write(path, []byte(list(2)), 0o600); err != nil { // by renaming
		t.Fatal(err)
	}
	holds(t, f, 2, "")
	write(t, path, "- {frontend: 10.96.0.1}")
	holds(t, f, 2, "services.yaml: service 1: frontend:")
	write(t, path, "")
	holds(t, f, 2, "is written []")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	holds(t, f, 2, "no such file")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	holds(t, f, 2, "not a regular file")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(t, path, "[]")
	holds(t, f, 0, "")
}

// The directory of the file changes as Kubernetes changes mounted configuration: behind a symbolic link.
func TestFollowLink(t *testing.T) {
	dir := t.TempDir()
	for i := range 2 {
		if err := os.Mkdir(filepath.Join(dir, fmt.Sprint("v", i)), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, fmt.Sprint("v", i), "services.yaml"), list(i+1))
	}
	point := func(i int) {
		tmp := filepath.Join(dir, "tmp")
		if err := os.Symlink(fmt.Sprint("v", i), tmp); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, filepath.Join(dir, "data")); err != nil {
			t.Fatal(err)
		}
	}
	point(0)
	f := follow(t, filepath.Join(dir, "data", "services.yaml"))
	holds(t, f, 1, "")
	point(1)
	holds(t, f, 2, "")
}

// A writer who is slow leaves the file in a state that reads well and lacks services: it does not count before he has closed it.
func TestHalfWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "services.yaml")
	write(t, path, list(4))
	f := follow(t, path)
	holds(t, f, 4, "")
	text := list(6)
	w, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for part := range strings.SplitSeq(text, "- ") {
		if part != "" {
			part = "- " + part
		}
		if _, err := w.WriteString(part); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * poll)
		if n := f.Table().Snapshot().Len(); n != 4 {
			t.Fatalf("%d services of a half-written file", n)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	holds(t, f, 6, "")
}
