package main

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// wanted are the modules of what a node of Hypha and its tests need. Those that a kernel has built in, or has not at all, are
// not among its files, and are passed over.
var wanted = []string{"virtio_pci", "virtio_blk", "veth", "vxlan", "bridge", "tun", "sch_ingress", "cls_bpf", "tcp_diag", "udp_diag"}

// A module is one to load: its file name in the guest, and its content.
type module struct {
	name string
	data []byte
}

// modules are those of a kernel that are wanted, each behind those that it needs.
func modules(ctx context.Context, dir string) ([]module, error) {
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if stem, _, ok := strings.Cut(filepath.Base(path), ".ko"); ok && !d.IsDir() {
			files[strings.ReplaceAll(stem, "-", "_")] = path
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for modules: %w", err)
	}
	var out []module
	seen := map[string]bool{}
	var add func(name string) error
	add = func(name string) error {
		name = strings.ReplaceAll(name, "-", "_")
		path := files[name]
		if path == "" || seen[name] {
			return nil
		}
		seen[name] = true
		data, err := readModule(ctx, path)
		if err != nil {
			return fmt.Errorf("read module %s: %w", name, err)
		}
		needs, err := depends(data)
		if err != nil {
			return fmt.Errorf("read module %s: %w", name, err)
		}
		for _, n := range needs {
			if err := add(n); err != nil {
				return err
			}
		}
		out = append(out, module{name + ".ko", data})
		return nil
	}
	for _, name := range wanted {
		if err := add(name); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func readModule(ctx context.Context, path string) ([]byte, error) {
	if filepath.Ext(path) == ".xz" {
		out, err := output(ctx, "", "xz", "-dc", path)
		return []byte(out), err
	}
	return os.ReadFile(path)
}

// depends are the modules that a module says it needs.
func depends(data []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info := f.Section(".modinfo")
	if info == nil {
		return nil, fmt.Errorf("it has no .modinfo")
	}
	text, err := info.Data()
	if err != nil {
		return nil, err
	}
	for field := range bytes.SplitSeq(text, []byte{0}) {
		if list, ok := bytes.CutPrefix(field, []byte("depends=")); ok && len(list) > 0 {
			return strings.Split(string(list), ","), nil
		}
	}
	return nil, nil
}

// image finds the bootable file of an unpacked kernel.
func image(dir string) (string, error) {
	var found []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if !d.IsDir() && strings.HasPrefix(d.Name(), "vmlinuz") {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("look for the kernel: %w", err)
	}
	if len(found) == 0 {
		return "", fmt.Errorf("%s holds no kernel", dir)
	}
	return slices.Min(found), nil
}
