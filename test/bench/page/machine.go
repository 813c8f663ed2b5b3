// Package page writes results of benchmarks into a document: what they ran on, and text between markers.
package page

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine describes what it ran on and with, as far as results depend on it: the first line of what each of these commands
// says is part of it.
func Machine(commands ...[]string) string {
	var u unix.Utsname
	release := "unknown"
	if unix.Uname(&u) == nil {
		release, _, _ = strings.Cut(unix.ByteSliceToString(u.Release[:]), "-") // what follows names a distribution's or a host's build
	}
	model := "unknown CPU"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "Machine: Linux %s, %d CPUs (%s), a virtual machine unless said otherwise. ", release, runtime.NumCPU(), model)
	for _, argv := range commands {
		out.WriteString(firstLine(argv...) + "; ")
	}
	return out.String() + runtime.Version() + "."
}

// firstLine is what a program says of its version, or its name.
func firstLine(argv ...string) string {
	out, err := exec.Command(argv[0], argv[1:]...).Output()
	if err != nil {
		return argv[0]
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}
