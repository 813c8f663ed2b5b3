// Command kernel tries Hypha on the kernels that it promises to run on: Debian's, each in a virtual machine whose CPUs are
// emulated, and the machine's own. On each, all program objects must load in every configuration, and the packet tests and
// a cluster of two nodes must work. What a kernel offers and what the verifier made of the programs goes into docs/kernels.md.
//
//	go run ./test/kernel [-kernel 5.10,own] [-check verifier,pod] [-write docs/kernels.md]
//
// Kernels are kept under bin/kernels/. It wants root, for the machine's own kernel.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	var (
		names = flag.String("kernel", "", "kernels to try, separated by commas (default: all)")
		which = flag.String("check", "", "checks to make, separated by commas (default: all)")
		dir   = flag.String("dir", filepath.Join("bin", "kernels"), "where kernels, programs and logs are kept")
		write = flag.String("write", "", "document to write the tables to, from the last run of each kernel")
		reuse = flag.Bool("reuse", false, "use the programs of the run before")
	)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := try(ctx, list(*names), list(*which), *dir, *write, *reuse); err != nil {
		fmt.Fprintln(os.Stderr, "kernel:", err)
		os.Exit(1)
	}
}

func list(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' })
}

func try(ctx context.Context, names, which []string, dir, write string, reuse bool) error {
	chosen, err := choose(names)
	if err != nil {
		return err
	}
	wantedChecks := slices.DeleteFunc(slices.Clone(checks), func(c check) bool { return len(which) > 0 && !slices.Contains(which, c.name) })
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	programs := filepath.Join(dir, "programs")
	drive := filepath.Join(dir, "programs.img")
	if !reuse {
		if err := build(ctx, programs); err != nil {
			return err
		}
		if err := disk(ctx, drive, programs, "1G"); err != nil {
			return err
		}
	}
	var bad []string
	for _, k := range chosen {
		guest := func(c check) bool { return k.pattern != "" && (len(which) == 0 || slices.Contains(which, c.name)) }
		again, list := guest(reboot), slices.Clone(wantedChecks)
		if guest(clock) {
			list = append(list, clock)
		}
		r, err := tryOne(ctx, k, list, again, dir, programs, drive)
		if err != nil {
			fmt.Printf("%-5s %v\n", k.name, err)
			bad = append(bad, k.name)
			continue
		}
		count := len(list)
		if again {
			count++
		}
		if !r.ok(count) {
			bad = append(bad, k.name)
		}
		if err := r.save(filepath.Join(dir, k.name+".json")); err != nil {
			return err
		}
	}
	if write != "" {
		if err := document(write, dir); err != nil {
			return err
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("failed on %s; what was printed is in %s/*.log", strings.Join(bad, ", "), dir)
	}
	return nil
}

// tryOne makes the checks on one kernel and tells each result in a line.
func tryOne(ctx context.Context, k kernel, list []check, again bool, dir, programs, drive string) (*run, error) {
	m := machine{kernel: k, dir: programs}
	if k.pattern != "" {
		kernelDir, err := store{dir}.open(ctx, k)
		if err != nil {
			return nil, err
		}
		if m.image, err = image(kernelDir); err != nil {
			return nil, err
		}
		m.modules, m.root, m.disks = kernelDir, filepath.Join(dir, k.name+".initramfs"), []string{drive}
	}
	tell := func(r *result) { fmt.Printf("%-5s %-9s %s\n", k.name, r.Check, r.line()) }
	r := &run{}
	if len(list) > 0 {
		var err error
		if r, err = m.run(ctx, list, filepath.Join(dir, k.name+".log"), tell); err != nil {
			return nil, err
		}
	}
	if again {
		b, release, err := m.restart(ctx, dir)
		if err != nil {
			return nil, err
		}
		r.Release, r.Results = release, append(r.Results, b)
		tell(b)
	}
	if k.pattern == "" {
		r.Release = ownRelease()
	}
	for _, t := range r.Trouble {
		fmt.Printf("%-5s %s\n", k.name, t)
	}
	return r, nil
}

// document writes the tables from the last run of each kernel.
func document(path, dir string) error {
	var runs []*run
	for _, k := range kernels {
		r, err := load(filepath.Join(dir, k.name+".json"))
		if err != nil {
			return fmt.Errorf("kernel %s was never tried: %w", k.name, err)
		}
		runs = append(runs, r)
	}
	return writeTables(path, runs)
}
