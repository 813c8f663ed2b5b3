package doctor

import (
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func file(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }

func healthy() fstest.MapFS {
	return fstest.MapFS{
		"proc/sys/kernel/osrelease":    file("6.18.44\n"),
		"proc/self/status":             file("Name:\tx\nCapEff:\t000001ffffffffff\n"),
		"proc/self/mounts":             file("bpf /sys/fs/bpf bpf rw 0 0\n"),
		"proc/meminfo":                 file("MemTotal:       24684000 kB\n"),
		"proc/net/udp":                 file("  sl  local_address rem_address\n 1: 00000000:0035 00000000:0000 07\n"),
		"sys/kernel/btf/vmlinux":       file("x"),
		"sys/kernel/security/lockdown": file("none [integrity] confidentiality\n"),
		"sys/class/net/eth0":           file(""),
		"opt/cni/bin/hypha-cni":        file("x"),
	}
}

func find(r Report, name string) Check {
	for _, c := range r.Checks {
		if c.Name == name {
			return c
		}
	}
	return Check{}
}

func TestHealthy(t *testing.T) {
	r := examine(healthy(), true, nil)
	if !r.OK || !r.Root || len(r.Checks) != 9 {
		t.Errorf("%+v", r)
	}
	for _, c := range r.Checks {
		if !c.OK {
			t.Errorf("%+v", c)
		}
	}
}

// TestFaults breaks one thing at a time.
func TestFaults(t *testing.T) {
	for _, c := range []struct {
		path, text string // "" = remove the file
		check      string
		want       Check
		ok         bool // of the whole
	}{
		{"proc/sys/kernel/osrelease", "5.4.0-generic", "kernel", Check{Required: true, Detail: "5.4.0-generic", Remedy: "boot Linux 5.10 or newer"}, false},
		{"proc/sys/kernel/osrelease", "", "kernel", Check{Required: true, Detail: "its version cannot be read", Remedy: "mount procfs on /proc"}, false},
		{"proc/self/status", "CapEff:\t0000000000000000\n", "capabilities",
			Check{Required: true, Detail: "this process lacks CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF", Remedy: "run this, and the agent, as root"}, false},
		{"proc/self/status", "nonsense", "capabilities", Check{Required: true, Detail: "cannot be read", Remedy: "mount procfs on /proc"}, false},
		{"proc/self/mounts", "x /y z\n", "bpffs", Check{OK: true, Detail: "not mounted on /sys/fs/bpf; the agent mounts it"}, true},
		{"proc/meminfo", "MemTotal: 131072 kB\n", "memory",
			Check{Detail: "128 MiB; map sizes follow it", Remedy: "set the map sizes by hand (bpf-ct-global-max and the like)"}, true},
		{"proc/net/udp6", " 2: 00000000000000000000000000000000:2118 0:0 07\n", "overlay port",
			Check{Detail: "UDP 8472 is in use by something else, probably another overlay", Remedy: "remove it, or give every agent another --tunnel-port"}, true},
		{"sys/class/net/hypha_vxlan", "x", "overlay port", Check{OK: true, Detail: "UDP 8472 is Hypha's own"}, true},
		{"sys/class/net/flannel.1", "x", "other pod networks",
			Check{Detail: "devices of another one are here: flannel.1", Remedy: "remove the other network before workloads are attached"}, true},
		{"sys/kernel/security/lockdown", "none integrity [confidentiality]", "lockdown",
			Check{Required: true, Detail: "the kernel is locked down to confidentiality: eBPF programs cannot read", Remedy: "boot with lockdown=integrity"}, false},
		{"sys/kernel/security/lockdown", "", "lockdown", Check{}, true},
		{"sys/kernel/btf/vmlinux", "", "btf", Check{Detail: "the kernel has no type information; the datapath does without, tools such as bpftool show less",
			Remedy: "boot a kernel with CONFIG_DEBUG_INFO_BTF"}, true},
		{"opt/cni/bin/hypha-cni", "", "cni plugin", Check{OK: true, Detail: "not in /opt/cni/bin; only container runtimes need it there"}, true},
	} {
		root := healthy()
		if c.text == "" {
			delete(root, c.path)
		} else {
			root[c.path] = file(c.text)
		}
		r := examine(root, true, nil)
		if r.OK != c.ok {
			t.Errorf("%s %q: ok %v, want %v", c.path, c.text, r.OK, c.ok)
		}
		if c.want.Detail != "" {
			c.want.Name = c.check
		}
		if d := cmp.Diff(c.want, find(r, c.check)); d != "" {
			t.Errorf("%s %q: %s", c.path, c.text, d)
		}
	}
}

func TestProbeComesFirst(t *testing.T) {
	r := examine(healthy(), false, func() []Check {
		return []Check{{Name: "kernel", Required: true, Detail: "as the probe says"}, {Name: "tcx", OK: true}}
	})
	if r.OK || r.Root {
		t.Errorf("%+v", r)
	}
	if got := find(r, "kernel").Detail; got != "as the probe says" || r.Checks[1].Name != "tcx" {
		t.Errorf("%+v", r.Checks)
	}
	n := 0
	for _, c := range r.Checks {
		if c.Name == "kernel" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d lines about the kernel", n)
	}
}

func TestEmptyMachine(t *testing.T) {
	if r := examine(fstest.MapFS{}, false, nil); r.OK {
		t.Errorf("a machine without anything is well: %+v", r)
	}
}

// TestUnprivileged: lacking rights is told, but says nothing about the machine.
func TestUnprivileged(t *testing.T) {
	root := healthy()
	root["proc/self/status"] = file("CapEff:\t0000000000000000\n")
	r := examine(root, false, func() []Check { return []Check{{Name: "privileges", Required: true, Detail: "not running as root"}} })
	if !r.OK || r.Root || find(r, "privileges").OK || find(r, "capabilities").OK || find(r, "capabilities").Required {
		t.Errorf("%+v", r)
	}
}
