package demo

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/lab"
	"github.com/hypha-net/hypha/internal/netns"
)

// The oldest kernel the datapath supports.
const minMajor, minMinor = 5, 10

// refuse says why there cannot be a demo here, nil when there can.
func (d *Demo) refuse() error {
	if err := needRoot(); err != nil {
		return err
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("ask for the kernel's version: %w", err)
	}
	if err := checkKernel(unix.ByteSliceToString(u.Release[:])); err != nil {
		return err
	}
	var err error
	d.bin, err = lab.FindBinaries(d.binDir)
	return err
}

func needRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("the demo needs root: it makes network namespaces and loads eBPF programs; try `sudo hypha demo`")
	}
	return nil
}

// checkKernel refuses releases ("6.1.0-18-amd64") below the oldest supported one.
func checkKernel(release string) error {
	major, rest, _ := strings.Cut(release, ".")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	a, err1 := strconv.Atoi(major)
	b, err2 := strconv.Atoi(rest[:end])
	if err1 != nil || err2 != nil {
		return fmt.Errorf("the kernel's release %q is no version; Hypha needs Linux %d.%d or newer", release, minMajor, minMinor)
	}
	if a < minMajor || a == minMajor && b < minMinor {
		return fmt.Errorf("this kernel is too old: it is Linux %s, Hypha needs %d.%d or newer", release, minMajor, minMinor)
	}
	return nil
}

// conflict says what stands in the way of a new demo: namespaces of one whose directory is gone, or an agent at its
// sockets that the demo did not start.
func (d *Demo) conflict() error {
	names, err := netns.List(d.prefix + "-")
	if err != nil {
		return err
	}
	if len(names) > 0 {
		return fmt.Errorf("network namespaces of another demo are there (%s), but not its state in %s: `hypha demo down` removes them",
			strings.Join(names, ", "), d.dir)
	}
	left, err := os.ReadDir(d.dir)
	if err != nil {
		return fmt.Errorf("look into the demo's directory: %w", err)
	}
	if len(left) > 0 {
		return fmt.Errorf("%s is not empty (%s, ...) and no demo's: move it away, or `hypha demo down` to remove what is left of a demo",
			d.dir, left[0].Name())
	}
	return nil
}
