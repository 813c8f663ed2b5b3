// Package image writes container images as archives that Docker, Podman, containerd and skopeo read: an OCI layout which is a
// Docker archive at the same time. The same files give the same bytes: entries are sorted, and have neither time nor owner.
package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// Tree is the content of an image's layer by path ("usr/bin/hypha"). Directories that files lie in need not be named. The zero
// value is empty.
type Tree struct{ nodes map[string]node }

// node is one entry: a directory, a symbolic link, bytes, or a file of this machine.
type node struct {
	mode   fs.FileMode // type and permissions
	link   string
	data   []byte
	source string
}

func (t *Tree) put(name string, n node) {
	if t.nodes == nil {
		t.nodes = map[string]node{}
	}
	name = strings.Trim(path.Clean("/"+name), "/")
	if name == "" {
		return
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if _, ok := t.nodes[dir]; ok {
			break
		}
		t.nodes[dir] = node{mode: fs.ModeDir | 0o755}
	}
	t.nodes[name] = n
}

// Dir adds a directory.
func (t *Tree) Dir(name string, mode fs.FileMode) { t.put(name, node{mode: fs.ModeDir | mode}) }

// Link adds a symbolic link.
func (t *Tree) Link(name, to string) { t.put(name, node{mode: fs.ModeSymlink | 0o777, link: to}) }

// Data adds a file with this content.
func (t *Tree) Data(name string, mode fs.FileMode, data []byte) {
	t.put(name, node{mode: mode, data: data})
}

// Copy adds a file of this machine, which is read when the image is written.
func (t *Tree) Copy(name string, mode fs.FileMode, source string) {
	t.put(name, node{mode: mode, source: source})
}

// Has says whether there is an entry of this name.
func (t *Tree) Has(name string) bool {
	_, ok := t.nodes[strings.Trim(path.Clean("/"+name), "/")]
	return ok
}

// write writes the tree as a tar archive.
func (t *Tree) write(w io.Writer) error {
	out := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(t.nodes)) { // a directory sorts before what is in it
		if err := t.nodes[name].write(out, name); err != nil {
			return fmt.Errorf("pack %s: %w", name, err)
		}
	}
	return out.Close()
}

func (n node) write(out *tar.Writer, name string) error {
	h := &tar.Header{Name: name, Mode: int64(n.mode.Perm()), Typeflag: tar.TypeReg, Format: tar.FormatPAX}
	if n.mode&fs.ModeSticky != 0 {
		h.Mode |= 0o1000
	}
	var content io.Reader = bytes.NewReader(n.data)
	switch {
	case n.mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	case n.mode&fs.ModeSymlink != 0:
		h.Typeflag, h.Linkname = tar.TypeSymlink, n.link
	case n.source != "":
		f, err := os.Open(n.source)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		st, err := f.Stat()
		if err != nil {
			return err
		}
		if !st.Mode().IsRegular() {
			return fmt.Errorf("%s is no regular file", n.source)
		}
		h.Size, content = st.Size(), f
	default:
		h.Size = int64(len(n.data))
	}
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.CopyN(out, content, h.Size)
	return err
}
