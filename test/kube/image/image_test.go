package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// sample is an image whose files were made in this order, at this time.
func sample(t *testing.T, order []string, at time.Time) *Image {
	t.Helper()
	i := &Image{Names: []string{"example.org/a:1", "example.org/a:2"}, Arch: "arm64", Entrypoint: []string{"/bin/a"}, Cmd: []string{"x"},
		Env: []string{"PATH=/bin"}, Labels: map[string]string{"b": "2", "a": "1"}}
	for _, name := range order {
		switch name {
		case "bin/a":
			file := filepath.Join(t.TempDir(), "a")
			if err := os.WriteFile(file, bytes.Repeat([]byte("a"), 3000), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(file, at, at); err != nil {
				t.Fatal(err)
			}
			i.Tree.Copy(name, 0o755, file)
		case "bin/b":
			i.Tree.Link(name, "a")
		case "tmp":
			i.Tree.Dir(name, fs.ModeSticky|0o777)
		case "etc/passwd":
			i.Tree.Data(name, 0o644, []byte("root"))
		}
	}
	return i
}

func write(t *testing.T, i *Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := i.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSameBytes(t *testing.T) {
	order := []string{"bin/a", "bin/b", "tmp", "etc/passwd"}
	one := write(t, sample(t, order, time.Unix(1, 0)))
	slices.Reverse(order)
	if two := write(t, sample(t, order, time.Now())); !bytes.Equal(one, two) {
		t.Error("the same files gave other bytes")
	}
	other := sample(t, order, time.Now())
	other.Tree.Data("etc/passwd", 0o644, []byte("toor"))
	if bytes.Equal(one, write(t, other)) {
		t.Error("other files gave the same bytes")
	}
}

// read unpacks a tar archive.
func read(t *testing.T, b []byte) (headers []*tar.Header, data map[string][]byte) {
	t.Helper()
	data = map[string][]byte{}
	for in := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return headers, data
		}
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.IsZero() && !h.ModTime.Equal(time.Unix(0, 0)) || h.Uid != 0 || h.Gid != 0 || h.Uname != "" {
			t.Errorf("%s has a time or an owner: %v", h.Name, h)
		}
		headers = append(headers, h)
		if data[h.Name], err = io.ReadAll(in); err != nil {
			t.Fatal(err)
		}
	}
}

func decode[T any](t *testing.T, b []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestArchive(t *testing.T) {
	_, files := read(t, write(t, sample(t, []string{"etc/passwd", "tmp", "bin/b", "bin/a"}, time.Now())))
	for name, b := range files {
		if digest, ok := strings.CutPrefix(name, "blobs/sha256/"); ok {
			if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != digest {
				t.Errorf("%s holds something else", name)
			}
		}
	}
	index := decode[struct{ Manifests []descriptor }](t, files["index.json"])
	docker := decode[[]dockerManifest](t, files["manifest.json"])
	if len(index.Manifests) != 2 || len(docker) != 1 {
		t.Fatalf("%s\n%s", files["index.json"], files["manifest.json"])
	}
	var names []string
	for _, m := range index.Manifests {
		names = append(names, m.Annotations[annotationName])
	}
	want := []string{"example.org/a:1", "example.org/a:2"}
	if !slices.Equal(names, want) || !slices.Equal(docker[0].RepoTags, want) {
		t.Errorf("names: %v, %v", names, docker[0].RepoTags)
	}
	manifest := decode[struct {
		Config descriptor
		Layers []descriptor
	}](t, files[index.Manifests[0].path()])
	if manifest.Config.path() != docker[0].Config || manifest.Layers[0].path() != docker[0].Layers[0] {
		t.Error("the two formats refer to different blobs")
	}
	layer := files[manifest.Layers[0].path()]
	if int64(len(layer)) != manifest.Layers[0].Size {
		t.Errorf("layer of %d bytes, said to be %d", len(layer), manifest.Layers[0].Size)
	}
	c := decode[config](t, files[manifest.Config.path()])
	if c.Architecture != "arm64" || c.OS != "linux" || !slices.Equal(c.RootFS.DiffIDs, []string{manifest.Layers[0].Digest}) ||
		!slices.Equal(c.Config.Entrypoint, []string{"/bin/a"}) || !maps.Equal(c.Config.Labels, map[string]string{"a": "1", "b": "2"}) {
		t.Errorf("configuration: %+v", c)
	}
	headers, content := read(t, layer)
	var got []string
	for _, h := range headers {
		got = append(got, h.FileInfo().Mode().String()+" "+h.Name+" "+h.Linkname)
	}
	if diff := cmp.Diff([]string{"drwxr-xr-x bin/ ", "-rwxr-xr-x bin/a ", "Lrwxrwxrwx bin/b a", "drwxr-xr-x etc/ ", "-rw-r--r-- etc/passwd ",
		"dtrwxrwxrwx tmp/ "}, got); diff != "" {
		t.Errorf("layer (-want +got):\n%s", diff)
	}
	if len(content["bin/a"]) != 3000 || string(content["etc/passwd"]) != "root" {
		t.Error("content of files")
	}
}

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "images", "a.tar")
	i := sample(t, []string{"etc/passwd"}, time.Now())
	i.Tree.Copy("gone", 0o644, filepath.Join(t.TempDir(), "gone"))
	if err := i.WriteFile(path); err == nil {
		t.Error("wrote a file that is not there")
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	i = sample(t, []string{"etc/passwd"}, time.Now())
	if err := i.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, write(t, i)) {
		t.Errorf("the file differs: %v", err)
	}
	if err := (&Image{}).Write(io.Discard); err == nil {
		t.Error("an image without a name")
	}
}

func TestProgram(t *testing.T) {
	var tree Tree
	if err := tree.Program(t.Context(), "true"); err != nil {
		t.Skip(err) // no ldd, or no such program: nothing to try with
	}
	if !tree.Has("usr/bin/true") {
		t.Error("the program is not there")
	}
	if err := tree.Program(t.Context(), "no-such-program"); err == nil {
		t.Error("added a program that is not there")
	}
}
