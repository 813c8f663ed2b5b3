package doctor

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

func read(root fs.FS, name string) (string, bool) {
	b, err := fs.ReadFile(root, name)
	return strings.TrimSpace(string(b)), err == nil
}

func kernel(root fs.FS) Check {
	rel, _ := read(root, "proc/sys/kernel/osrelease")
	c := Check{Name: "kernel", Required: true, Detail: rel}
	var major, minor int
	if n, _ := fmt.Sscanf(rel, "%d.%d", &major, &minor); n < 2 {
		c.Detail, c.Remedy = "its version cannot be read", "mount procfs on /proc"
		return c
	}
	c.OK = major > 5 || major == 5 && minor >= 10
	if !c.OK {
		c.Remedy = "boot Linux 5.10 or newer"
	}
	return c
}

// Capabilities the agent uses, by their bit in CapEff (include/uapi/linux/capability.h).
var needed = []struct {
	bit  uint
	name string
}{{12, "CAP_NET_ADMIN"}, {21, "CAP_SYS_ADMIN"}, {38, "CAP_PERFMON"}, {39, "CAP_BPF"}}

func capabilities(root fs.FS) Check {
	c := Check{Name: "capabilities", Required: true, Remedy: "run this, and the agent, as root"}
	status, _ := read(root, "proc/self/status")
	var eff uint64
	found := false
	for line := range strings.Lines(status) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			eff, found = n, err == nil
		}
	}
	if !found {
		c.Detail, c.Remedy = "cannot be read", "mount procfs on /proc"
		return c
	}
	var missing []string
	for _, n := range needed {
		if eff&(1<<n.bit) == 0 {
			missing = append(missing, n.name)
		}
	}
	if len(missing) > 0 {
		c.Detail = "this process lacks " + strings.Join(missing, ", ")
		return c
	}
	return Check{Name: c.Name, OK: true, Required: true, Detail: "all that the agent uses"}
}

func lockdown(root fs.FS) Check {
	s, ok := read(root, "sys/kernel/security/lockdown")
	c := Check{Name: "lockdown", OK: true, Required: true, Detail: "off"}
	switch {
	case !ok: // no such LSM, or securityfs is not mounted
		return Check{}
	case strings.Contains(s, "[confidentiality]"):
		c.OK, c.Detail, c.Remedy = false, "the kernel is locked down to confidentiality: eBPF programs cannot read", "boot with lockdown=integrity"
	case strings.Contains(s, "[integrity]"):
		c.Detail = "integrity; eBPF works"
	}
	return c
}

func bpffs(root fs.FS) Check {
	c := Check{Name: "bpffs", OK: true, Detail: "mounted on /sys/fs/bpf"}
	mounts, _ := read(root, "proc/self/mounts")
	for line := range strings.Lines(mounts) {
		if f := strings.Fields(line); len(f) > 2 && f[1] == "/sys/fs/bpf" && f[2] == "bpf" {
			return c
		}
	}
	c.Detail = "not mounted on /sys/fs/bpf; the agent mounts it"
	return c
}

func btf(root fs.FS) Check {
	if _, err := fs.Stat(root, "sys/kernel/btf/vmlinux"); err == nil {
		return Check{Name: "btf", OK: true, Detail: "/sys/kernel/btf/vmlinux"}
	}
	return Check{Name: "btf", Detail: "the kernel has no type information; the datapath does without, tools such as bpftool show less",
		Remedy: "boot a kernel with CONFIG_DEBUG_INFO_BTF"}
}

// small is the memory, in kB, under which the default maps leave little for others.
const small = 512 << 10

func memory(root fs.FS) Check {
	info, _ := read(root, "proc/meminfo")
	for line := range strings.Lines(info) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "MemTotal:" {
			continue
		}
		kb, err := strconv.ParseUint(f[1], 10, 64)
		if err != nil {
			break
		}
		c := Check{Name: "memory", OK: kb >= small, Detail: fmt.Sprintf("%d MiB; map sizes follow it", kb>>10)}
		if !c.OK {
			c.Remedy = "set the map sizes by hand (bpf-ct-global-max and the like)"
		}
		return c
	}
	return Check{}
}

// overlay looks for somebody else on the overlay's UDP port, 8472 (hexadecimal 2118).
func overlay(root fs.FS) Check {
	if _, err := fs.Stat(root, "sys/class/net/hypha_vxlan"); err == nil {
		return Check{Name: "overlay port", OK: true, Detail: "UDP 8472 is Hypha's own"}
	}
	for _, name := range []string{"proc/net/udp", "proc/net/udp6"} {
		table, _ := read(root, name)
		for line := range strings.Lines(table) {
			if f := strings.Fields(line); len(f) > 1 && strings.HasSuffix(f[1], ":2118") {
				return Check{Name: "overlay port", Detail: "UDP 8472 is in use by something else, probably another overlay",
					Remedy: "remove it, or give every agent another --tunnel-port"}
			}
		}
	}
	return Check{Name: "overlay port", OK: true, Detail: "UDP 8472 is free"}
}

// rivals looks for the devices of other pod networks.
func rivals(root fs.FS) Check {
	devices, err := fs.ReadDir(root, "sys/class/net")
	if err != nil {
		return Check{}
	}
	var found []string
	for _, d := range devices {
		n := d.Name()
		if strings.HasPrefix(n, "cilium_") || strings.HasPrefix(n, "flannel.") || strings.HasPrefix(n, "cali") || n == "weave" || n == "kube-bridge" {
			found = append(found, n)
		}
	}
	if len(found) == 0 {
		return Check{Name: "other pod networks", OK: true, Detail: "none seen"}
	}
	return Check{Name: "other pod networks", Detail: "devices of another one are here: " + strings.Join(found, ", "),
		Remedy: "remove the other network before workloads are attached"}
}

func plugin(root fs.FS) Check {
	c := Check{Name: "cni plugin", OK: true, Detail: "/opt/cni/bin/hypha-cni"}
	if _, err := fs.Stat(root, "opt/cni/bin/hypha-cni"); err != nil {
		c.Detail = "not in /opt/cni/bin; only container runtimes need it there"
	}
	return c
}
