package sysdump

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// archive is a directory in which files are gathered, until they are packed.
type archive struct{ dir string }

func newArchive(beside string) (*archive, error) {
	dir, err := os.MkdirTemp(filepath.Dir(beside), ".sysdump-")
	if err != nil {
		return nil, fmt.Errorf("gather files: %w", err)
	}
	return &archive{dir}, nil
}

func (a *archive) remove() error { return os.RemoveAll(a.dir) }

// safe makes a file's name of what objects and nodes are called.
func safe(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '/' || r == '\\' || r == ':' || r < ' ' || r == 0x7f {
			return '-'
		}
		return r
	}, strings.TrimLeft(name, "."))
}

// write fills a file, named by its elements, from what fill writes. What there is of it stays when that fails.
func (a *archive) write(fill func(io.Writer) error, elements ...string) (err error) {
	name := a.dir
	for _, e := range elements {
		name = filepath.Join(name, safe(e))
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if info, e := os.Stat(name); e == nil && info.Size() == 0 {
			_ = os.Remove(name)
		}
	}()
	return fill(f)
}

func (a *archive) text(text string, elements ...string) error {
	return a.write(func(w io.Writer) error { _, err := io.WriteString(w, text); return err }, elements...)
}

// pack makes the zip file; in it all is under one directory, called as the file is.
func (a *archive) pack(to string) (err error) {
	f, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", to, err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = fmt.Errorf("write %s: %w", to, err)
		}
	}()
	z := zip.NewWriter(f)
	top := strings.TrimSuffix(filepath.Base(to), ".zip")
	err = fs.WalkDir(os.DirFS(a.dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return a.add(z, path.Join(top, name), filepath.Join(a.dir, filepath.FromSlash(name)))
	})
	return errors.Join(err, z.Close())
}

func (a *archive) add(z *zip.Writer, name, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // read only
	info, err := in.Stat()
	if err != nil {
		return err
	}
	h, err := zip.FileInfoHeader(info)
	if err != nil {
		return err
	}
	h.Name, h.Method = name, zip.Deflate
	out, err := z.CreateHeader(h)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return err
}
