package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// A machine is where run.sh runs: a guest, or this one.
type machine struct {
	kernel  kernel
	image   string   // of the guest's kernel
	modules string   // directory with the guest's modules
	root    string   // file for the initramfs
	disks   []string // the checks, and perhaps state
	dir     string   // this machine: the programs
	reset   bool     // the guest ends in a reset, in the middle of all it does
}

// command starts the checks; what it prints is read by read.
func (m machine) command(ctx context.Context, checks string) *exec.Cmd {
	if m.image == "" {
		cmd := exec.CommandContext(ctx, "sh", filepath.Join(m.dir, "run.sh"), checks)
		cmd.Env = append(os.Environ(), "PATH="+filepath.Join(m.dir, "tool")+":"+os.Getenv("PATH"))
		return cmd
	}
	line := "console=ttyS0 quiet panic=-1 net.ifnames=0"
	if m.reset {
		line += " hypha.reset"
	}
	args := []string{"-accel", "tcg,thread=multi", "-cpu", "max,la57=off", "-smp", fmt.Sprint(min(2, runtime.NumCPU())), "-m", "2048",
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
		"-kernel", m.image, "-initrd", m.root, "-append", line}
	for i, d := range m.disks {
		mode := ",snapshot=on"
		if i > 0 {
			mode = ",cache=writethrough" // a reset must not lose what the guest has been told is on the disk
		}
		args = append(args, "-drive", "if=virtio,format=raw,file="+d+mode)
	}
	return exec.CommandContext(ctx, "qemu-system-x86_64", args...)
}

// run runs checks within their time. Everything printed goes to the log too.
func (m machine) run(ctx context.Context, list []check, log string, told func(*result)) (_ *run, err error) {
	ctx, cancel := context.WithTimeout(ctx, total(list))
	defer cancel()
	f, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	checks := log + ".checks"
	if err := os.WriteFile(checks, script(list), 0o644); err != nil {
		return nil, err
	}
	if m.image != "" {
		root, err := initramfs(ctx, m.modules, script(list))
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(m.root, root, 0o644); err != nil {
			return nil, err
		}
	}
	cmd := m.command(ctx, checks)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r, err := read(io.TeeReader(out, f), told)
	if werr := cmd.Wait(); werr != nil || ctx.Err() != nil {
		err = fmt.Errorf("%w: %s", errors.Join(err, werr, ctx.Err()), strings.TrimSpace(complaint.String()))
	}
	return r, err
}

// restart starts a guest again and again, which is reset without warning in between and keeps but its disk.
func (m machine) restart(ctx context.Context, dir string) (*result, string, error) {
	state := filepath.Join(dir, m.kernel.name+".state")
	if err := disk(ctx, state, "", "512M"); err != nil {
		return nil, "", err
	}
	m.disks, m.reset = append(m.disks, state), true
	sum, release := &result{Check: reboot.name, Ended: true, Attrs: map[string]string{}}, ""
	for i := range starts {
		r, err := m.run(ctx, []check{reboot}, filepath.Join(dir, fmt.Sprintf("%s.reboot%d.log", m.kernel.name, i)), func(*result) {})
		if err != nil {
			return nil, "", err
		}
		release = r.Release
		sum.Failed = append(sum.Failed, r.Trouble...)
		one := r.result(reboot.name)
		if one == nil {
			sum.Ended = false
			break
		}
		sum.Ended, sum.Code = sum.Ended && one.Ended, max(sum.Code, one.Code)
		sum.Took, sum.Passed = sum.Took+one.Took, sum.Passed+one.Passed
		sum.Failed, sum.Skipped = append(sum.Failed, one.Failed...), append(sum.Skipped, one.Skipped...)
	}
	return sum, release, nil
}
