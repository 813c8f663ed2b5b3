// Package doctor says what this machine has and lacks for running Hypha, without an agent, and without root as far as
// possible. What it cannot find out by reading files it takes from the datapath's own probes, which the caller
// passes in. It changes nothing.
package doctor

import (
	"io/fs"
	"os"
)

// Check is one thing that was looked at.
type Check struct {
	Name     string `json:"name"`
	OK       bool   `json:"ok"`
	Required bool   `json:"required"` // without it the agent does not start
	Detail   string `json:"detail"`   // what was found, or what is done without it
	Remedy   string `json:"remedy,omitempty"`
}

// Probe asks the kernel what it offers the datapath.
type Probe func() []Check

// Report is what was found.
type Report struct {
	OK     bool    `json:"ok"`   // nothing required is missing, as far as could be asked
	Root   bool    `json:"root"` // else some things could not be asked
	Checks []Check `json:"checks"`
}

// Examine looks at this machine, and where an agent keeps its state. probe may be nil.
func Examine(probe Probe, stateDir string) Report {
	r := examine(os.DirFS("/"), os.Geteuid() == 0, probe)
	r.Checks = append(r.Checks, disk(stateDir))
	return r
}

func examine(root fs.FS, privileged bool, probe Probe) Report {
	r := Report{OK: true, Root: privileged}
	if probe != nil {
		r.Checks = probe()
	}
	seen := map[string]bool{}
	for _, c := range r.Checks {
		seen[c.Name] = true
	}
	for _, look := range []func(fs.FS) Check{kernel, capabilities, lockdown, bpffs, btf, memory, overlay, rivals, plugin} {
		if c := look(root); c.Name != "" && !seen[c.Name] {
			r.Checks = append(r.Checks, c)
		}
	}
	for i, c := range r.Checks {
		if !privileged && (c.Name == "privileges" || c.Name == "capabilities") {
			r.Checks[i].Required = false // that is about who asks, not about the machine
			continue
		}
		r.OK = r.OK && (c.OK || !c.Required)
	}
	return r
}
