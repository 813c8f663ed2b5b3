package file

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hypha-net/hypha/internal/testutil/score"
)

type row struct {
	Name string   `json:"name"`
	IDs  []uint32 `json:"ids"`
}

var sample = row{Name: "ünï <code>", IDs: []uint32{1, 300, 65535}}

func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "row.json")
	for _, write := range []func(string, any, fs.FileMode) error{WriteJSON, ReplaceJSON} {
		if err := write(path, sample, 0o600); err != nil {
			t.Fatal(err)
		}
		var got row
		if err := ReadJSON(path, &got); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(sample, got); d != "" {
			t.Error(d)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("temporary files left: %v", left)
	}
}

func TestPlainJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "row.json")
	if err := Write(path, []byte(`{"name":"x"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	var got row
	if err := ReadJSON(path, &got); err != nil || got.Name != "x" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestMissing(t *testing.T) {
	var got row
	if err := ReadJSON(filepath.Join(t.TempDir(), "no.json"), &got); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v; want not exist", err)
	}
	if err := Remove(filepath.Join(t.TempDir(), "no.json")); err != nil {
		t.Error(err)
	}
}

// A file cut at any byte is noticed, unless only the line end or the whole checksum is gone: then the content is whole.
// TestCase23Truncated: a state file cut anywhere is set aside, never believed.
func TestCase23Truncated(t *testing.T) {
	sc := score.Start(t, "23", "a state file truncated at every byte")
	whole, err := Marshal(sample)
	if err != nil {
		t.Fatal(err)
	}
	noticed := 0
	sc.Count(len(whole), "cuts")
	for n := range len(whole) {
		path := filepath.Join(t.TempDir(), "row.json")
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		var got row
		err := ReadJSON(path, &got)
		if err == nil {
			if d := cmp.Diff(sample, got); d != "" {
				t.Fatalf("cut at %d: believed a wrong content: %s", n, d)
			}
			continue
		}
		noticed++
		if _, ok := errors.AsType[*DamagedError](err); !ok {
			t.Fatalf("cut at %d: %v", n, err)
		}
		if aside, err := os.ReadFile(path + ".damaged"); err != nil || len(aside) != n {
			t.Fatalf("cut at %d: not set aside: %v", n, err)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("cut at %d: still there: %v", n, err)
		}
	}
	sc.Say("%d noticed and set aside, the others change no content", noticed)
	if noticed < len(whole)-4 {
		t.Errorf("noticed %d of %d cuts", noticed, len(whole))
	}
}

// TestCase23BitFlips: no flipped bit makes another content believed.
func TestCase23BitFlips(t *testing.T) {
	sc := score.Start(t, "23", "every bit of a state file flipped")
	whole, err := Marshal(sample)
	if err != nil {
		t.Fatal(err)
	}
	sc.Count(8*len(whole), "flips")
	sc.Say("0 wrong contents believed")
	for i := range whole {
		for bit := range 8 {
			bad := append([]byte(nil), whole...)
			bad[i] ^= 1 << bit
			var got row
			if Unmarshal(bad, &got) == nil {
				if d := cmp.Diff(sample, got); d != "" {
					t.Fatalf("byte %d bit %d: believed a wrong content: %s", i, bit, d)
				}
			}
		}
	}
}

func TestScan(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"1.json": `{"name":"one"}`, "2.json": `{"name":`, "3.json.damaged": `{}`, "note.txt": "x",
		".4.json.tmp-1": "{", ".5.json.tmp-2": "{",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "6.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * tempAge)
	if err := os.Chtimes(filepath.Join(dir, ".5.json.tmp-2"), old, old); err != nil {
		t.Fatal(err)
	}
	got, err := ScanJSON[row](dir, ".json")
	if d := cmp.Diff(map[string]row{"1.json": {Name: "one"}}, got); d != "" {
		t.Error(d)
	}
	var damaged *DamagedError
	if !errors.As(err, &damaged) || damaged.Path != filepath.Join(dir, "2.json") {
		t.Errorf("error %v; want 2.json damaged", err)
	}
	var names []string
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	want := []string{".4.json.tmp-1", "1.json", "2.json.damaged", "3.json.damaged", "6.json", "note.txt"}
	if d := cmp.Diff(want, names); d != "" {
		t.Error(d)
	}
	if got, err := ScanJSON[row](filepath.Join(dir, "none"), ".json"); err != nil || len(got) != 0 {
		t.Errorf("missing directory: %v, %v", got, err)
	}
}

// Readers never see half a file while writers race.
func TestConcurrent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "row.json")
	if err := WriteJSON(path, sample, 0o600); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				if err := ReplaceJSON(path, sample, 0o600); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 500 {
		var got row
		if err := ReadJSON(path, &got); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
}

func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(path, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	err := Write(path, []byte("x"), 0o600)
	if err == nil {
		t.Fatal("wrote over a directory")
	}
	if again := Write(path, []byte("x"), 0o600); err.Error() != again.Error() || strings.Contains(err.Error(), tempInfix) {
		t.Errorf("two causes of one fault: %v; %v", err, again)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("temporary files left: %v", left)
	}
}

// What a process left that was killed while it wrote goes; state stays.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, ".policy.json"+tempInfix+"123")
	kept := filepath.Join(dir, "policy.json")
	for _, f := range []string{left, kept} {
		if err := os.WriteFile(f, []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Sweep(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("the temporary file: %v", err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("the state: %v", err)
	}
}
