package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
)

// Image is what an archive holds: one layer, and how to run what is in it.
type Image struct {
	Names      []string // with tags: "registry.k8s.io/pause:3.10.2"
	Arch       string   // as Go calls it
	Tree       Tree
	Entrypoint []string
	Cmd        []string
	Env        []string // "PATH=/usr/bin"
	Labels     map[string]string
}

// Media types and annotations of the OCI image specification, version 1.1, and of containerd, which takes the full name from its own.
const (
	typeManifest   = "application/vnd.oci.image.manifest.v1+json"
	typeIndex      = "application/vnd.oci.image.index.v1+json"
	typeConfig     = "application/vnd.oci.image.config.v1+json"
	typeLayer      = "application/vnd.oci.image.layer.v1.tar"
	annotationName = "io.containerd.image.name"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    *platform         `json:"platform,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

func (d descriptor) path() string { return "blobs/sha256/" + d.Digest[len("sha256:"):] }

// config is the part of an image that says how to run it (OCI image configuration).
type config struct {
	Created string `json:"created"`
	platform
	Config struct {
		Entrypoint []string          `json:"Entrypoint,omitempty"`
		Cmd        []string          `json:"Cmd,omitempty"`
		Env        []string          `json:"Env,omitempty"`
		Labels     map[string]string `json:"Labels,omitempty"`
	} `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

// dockerManifest is the entry of manifest.json (Docker image specification 1.2).
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// WriteFile writes the archive, in one step for readers.
func (i *Image) WriteFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".image-*")
	if err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	err = errors.Join(i.Write(f), f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write image %s: %w", path, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// Write writes the archive. Files are read twice, for the digest comes before them; one that changes meanwhile is an error.
func (i *Image) Write(w io.Writer) error {
	if len(i.Names) == 0 {
		return errors.New("an image needs a name")
	}
	sum := counter{Hash: sha256.New()}
	if err := i.Tree.write(&sum); err != nil {
		return err
	}
	layer := sum.descriptor(typeLayer)

	c := config{Created: "1970-01-01T00:00:00Z", platform: platform{Architecture: i.Arch, OS: "linux"}}
	c.Config.Entrypoint, c.Config.Cmd, c.Config.Env, c.Config.Labels = i.Entrypoint, i.Cmd, i.Env, i.Labels
	c.RootFS.Type, c.RootFS.DiffIDs = "layers", []string{layer.Digest}
	configDesc, configBytes := blob(typeConfig, c)
	manifest, manifestBytes := blob(typeManifest, map[string]any{
		"schemaVersion": 2, "mediaType": typeManifest, "config": configDesc, "layers": []descriptor{layer},
	})
	manifest.Platform = &c.platform
	var entries []descriptor
	for _, name := range i.Names {
		d := manifest
		d.Annotations = map[string]string{annotationName: name}
		entries = append(entries, d)
	}

	out := tar.NewWriter(w)
	file := func(name string, b []byte) error {
		if err := out.WriteHeader(header(name, int64(len(b)))); err != nil {
			return err
		}
		_, err := out.Write(b)
		return err
	}
	_, layout := blob("", map[string]string{"imageLayoutVersion": "1.0.0"})
	_, index := blob("", map[string]any{"schemaVersion": 2, "mediaType": typeIndex, "manifests": entries})
	_, docker := blob("", []dockerManifest{{Config: configDesc.path(), RepoTags: i.Names, Layers: []string{layer.path()}}})
	if err := errors.Join(file("oci-layout", layout), file("index.json", index), file("manifest.json", docker),
		file(configDesc.path(), configBytes), file(manifest.path(), manifestBytes)); err != nil {
		return err
	}
	if err := out.WriteHeader(header(layer.path(), layer.Size)); err != nil {
		return err
	}
	again := counter{Hash: sha256.New()}
	if err := i.Tree.write(io.MultiWriter(out, &again)); err != nil {
		return err
	}
	if again.descriptor(typeLayer).Digest != layer.Digest {
		return errors.New("a file changed while the image was written")
	}
	return out.Close()
}

func header(name string, size int64) *tar.Header {
	return &tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg, Size: size, Format: tar.FormatPAX}
}

// counter takes the digest and the size of what is written to it.
type counter struct {
	hash.Hash
	size int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.Hash.Write(b)
	c.size += int64(n)
	return n, err
}

func (c *counter) descriptor(mediaType string) descriptor {
	return descriptor{MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(c.Sum(nil)), Size: c.size}
}

// blob is a value as JSON, and what refers to it. Values are of this package, so they always marshal.
func blob(mediaType string, v any) (descriptor, []byte) {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(v); err != nil {
		panic(err)
	}
	sum := counter{Hash: sha256.New()}
	_, _ = sum.Write(b.Bytes())
	return sum.descriptor(mediaType), b.Bytes()
}
