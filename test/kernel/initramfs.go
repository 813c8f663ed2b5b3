package main

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed guest/init
var guestInit []byte

// tools of the machine that the tests call by name and busybox does not do as they want.
var tools = []string{"ip", "ping"}

// initramfs is a guest's root: busybox, the modules, what the tools need, and the checks.
func initramfs(ctx context.Context, kernelDir string, checks []byte) ([]byte, error) {
	files := map[string][]byte{"init": guestInit, "checks": checks}
	var err error
	if files["bin/busybox"], err = os.ReadFile("/usr/bin/busybox"); err != nil {
		return nil, err
	}
	mods, err := modules(ctx, kernelDir)
	if err != nil {
		return nil, err
	}
	var order strings.Builder
	for _, m := range mods {
		files["modules/"+m.name] = m.data
		fmt.Fprintln(&order, m.name)
	}
	files["modules/order"] = []byte(order.String())
	libs, err := libraries(ctx)
	if err != nil {
		return nil, err
	}
	for _, path := range libs {
		if files[path[1:]], err = os.ReadFile(path); err != nil {
			return nil, err
		}
	}
	return cpio(files), nil
}

// libraries are the files that the dynamic linker loads for the tools, itself included.
func libraries(ctx context.Context) ([]string, error) {
	var out []string
	for _, t := range tools {
		path, err := exec.LookPath(t)
		if err != nil {
			return nil, err
		}
		text, err := output(ctx, "", "ldd", path)
		if err != nil {
			return nil, err
		}
		for f := range strings.FieldsSeq(text) {
			if filepath.IsAbs(f) {
				out = append(out, f)
			}
		}
	}
	return out, nil
}

// cpio packs files in the format that the kernel unpacks ("newc"), with the directories they are in.
func cpio(files map[string][]byte) []byte {
	var b bytes.Buffer
	n := 0
	entry := func(name string, mode uint32, data []byte) {
		n++
		fmt.Fprintf(&b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00", n, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
		pad(&b)
		b.Write(data)
		pad(&b)
	}
	made := map[string]bool{".": true}
	var dir func(name string)
	dir = func(name string) {
		if !made[name] {
			made[name] = true
			dir(filepath.Dir(name))
			entry(name, 0o040755, nil)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		dir(filepath.Dir(name))
		entry(name, 0o100755, files[name])
	}
	entry("TRAILER!!!", 0, nil)
	return b.Bytes()
}

func pad(b *bytes.Buffer) {
	for b.Len()%4 != 0 {
		b.WriteByte(0)
	}
}
