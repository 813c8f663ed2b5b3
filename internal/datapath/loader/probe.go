package loader

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/datapath/bpffs"
	"github.com/hypha-net/hypha/internal/datapath/socket"
	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/paths"
)

// The oldest kernel supported.
const minMajor, minMinor = 5, 10

// Check is one thing that the datapath needs or can use.
type Check struct {
	Name     string
	OK       bool
	Required bool   // without it the agent does not start
	Detail   string // what was found, or what is done without it
	Remedy   string // what to do when it is missing and required
}

// Kernel is what Probe found.
type Kernel struct {
	Release string
	Checks  []Check
	TCX     bool // else clsact filters
	Peer    bool // bpf_redirect_peer works
	VXLAN   bool
	Netkit  bool
	Retval  bool // programs of control groups may choose the error of a call
	Destroy bool // sockets can be ended
}

// Err names everything required that is missing, with its remedy; nil if the datapath can run.
func (k *Kernel) Err() error {
	var failed error
	for _, c := range k.Checks {
		if c.Required && !c.OK {
			failed = errors.Join(failed, fmt.Errorf("%s: %s: %s", c.Name, c.Detail, c.Remedy))
		}
	}
	return failed
}

// Probe asks the kernel what it can do. It changes nothing that outlives it but this process's limit of locked memory: before
// Linux 5.11 that decides how many maps and programs a user may have, those of other agents counted.
func Probe() Kernel {
	k := Kernel{}
	if os.Geteuid() != 0 {
		k.add(Check{Name: "privileges", Required: true, Detail: "not running as root", Remedy: "run as root"})
		k.version()
		return k
	}
	k.add(Check{Name: "privileges", OK: true, Required: true, Detail: "root"})
	k.version()
	if err := rlimit.RemoveMemlock(); err != nil {
		k.try("locked memory", true, "run with CAP_SYS_RESOURCE, or with ulimit -l unlimited", err)
	}
	kernelRemedy := fmt.Sprintf("boot Linux %d.%d or newer with CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_BPF", minMajor, minMinor)
	k.try("program type sched_cls", true, kernelRemedy, features.HaveProgramType(ebpf.SchedCLS))
	k.try("program type xdp", true, kernelRemedy, features.HaveProgramType(ebpf.XDP))
	for _, t := range []ebpf.MapType{ebpf.Hash, ebpf.Array, ebpf.PerCPUArray, ebpf.LRUHash, ebpf.LPMTrie,
		ebpf.ArrayOfMaps, ebpf.RingBuf} {
		k.try("map type "+strings.ToLower(t.String()), true, kernelRemedy, features.HaveMapType(t))
	}
	for _, f := range []asm.BuiltinFunc{asm.FnRedirect, asm.FnRedirectNeigh, asm.FnFibLookup, asm.FnSkbSetTunnelKey,
		asm.FnSkbGetTunnelKey, asm.FnRingbufOutput, asm.FnSkcLookupTcp, asm.FnCsumDiff} {
		k.try("helper "+helperName(f), true, kernelRemedy, features.HaveProgramHelper(ebpf.SchedCLS, f))
	}
	k.Peer = k.try("helper "+helperName(asm.FnRedirectPeer), false, "", features.HaveProgramHelper(ebpf.SchedCLS, asm.FnRedirectPeer))
	k.try("program type cgroup_sock_addr", false, "without it services cannot be translated at sockets", features.HaveProgramType(ebpf.CGroupSockAddr))
	k.Retval = k.try("helper "+helperName(asm.FnSetRetval), false, "without it a socket is refused with EPERM", features.HaveProgramHelper(ebpf.CGroupSockAddr, asm.FnSetRetval))
	k.Destroy = k.try("socket destroy", false, "without it sockets stay connected to backends that have left their service", socket.Probe())
	_, err := link.QueryPrograms(link.QueryOptions{Target: loIndex, Attach: ebpf.AttachTCXIngress})
	k.TCX = k.try("tcx", false, "without it clsact filters are used", err)
	_, err = link.QueryPrograms(link.QueryOptions{Target: loIndex, Attach: ebpf.AttachNetkitPrimary})
	if errors.Is(err, unix.ENXIO) { // knows netkit; lo is none
		err = nil
	}
	k.Netkit = k.try("netkit", false, "without it there is no datapath-mode netkit-l2, only veth", err)
	veth, vxlan, clsact := probeDevices()
	k.try("veth", true, "load the module veth (CONFIG_VETH)", veth)
	k.VXLAN = k.try("vxlan", false, "without it only routing-mode native works; load the module vxlan (CONFIG_VXLAN)", vxlan)
	if !k.TCX {
		k.try("clsact", true, "load the module sch_ingress (CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF)", clsact)
	}
	k.jit()
	k.bpffs()
	return k
}

// helperName spells a helper as the kernel does: bpf_redirect_neigh, not FnRedirectNeigh.
func helperName(f asm.BuiltinFunc) string {
	var b strings.Builder
	b.WriteString("bpf")
	for _, r := range strings.TrimPrefix(f.String(), "Fn") {
		if unicode.IsUpper(r) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// loIndex is the index of the loopback device, the first of every network namespace.
const loIndex = 1

func (k *Kernel) add(c Check) { k.Checks = append(k.Checks, c) }

// try notes the outcome of a probe; hint is the remedy when required, else what happens without it.
func (k *Kernel) try(name string, required bool, hint string, err error) bool {
	c := Check{Name: name, OK: err == nil, Required: required, Detail: "available"}
	if err != nil {
		c.Detail = err.Error()
		if required {
			c.Remedy = hint
		} else if hint != "" {
			c.Detail += "; " + hint
		}
	}
	k.add(c)
	return c.OK
}

func (k *Kernel) version() {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		k.add(Check{Name: "kernel", Required: true, Detail: err.Error(), Remedy: "uname must work"})
		return
	}
	k.Release = unix.ByteSliceToString(u.Release[:])
	var major, minor int
	_, err := fmt.Sscanf(k.Release, "%d.%d", &major, &minor)
	k.add(Check{Name: "kernel", Required: true, Detail: k.Release,
		OK:     err == nil && (major > minMajor || major == minMajor && minor >= minMinor),
		Remedy: fmt.Sprintf("boot Linux %d.%d or newer", minMajor, minMinor)})
}

func (k *Kernel) jit() {
	b, err := os.ReadFile("/proc/sys/net/core/bpf_jit_enable")
	on := strings.TrimSpace(string(b))
	c := Check{Name: "jit", OK: err == nil && on != "0", Detail: "net.core.bpf_jit_enable = " + on}
	if err != nil { // only the initial network namespace has it
		c = Check{Name: "jit", OK: true, Detail: "not visible from this network namespace"}
	} else if !c.OK {
		c.Detail += "; programs are interpreted, several times slower"
	}
	k.add(c)
}

func (k *Kernel) bpffs() {
	ok, err := bpffs.Mounted()
	c := Check{Name: "bpffs", OK: true, Detail: "mounted on " + paths.BPFFS}
	if err != nil {
		c = Check{Name: "bpffs", Required: true, Detail: err.Error(), Remedy: "mount sysfs on /sys"}
	} else if !ok {
		c.Detail = "not mounted on " + paths.BPFFS + "; the agent mounts it"
	}
	k.add(c)
}

// probeDevices makes devices in a network namespace of its own, which ends with the thread that is in it.
func probeDevices() (veth, vxlan, clsact error) {
	err := netns.OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		a := netlink.NewLinkAttrs()
		a.Name = "probe0"
		veth = h.LinkAdd(&netlink.Veth{LinkAttrs: a, PeerName: "probe1", PeerTxQLen: -1})
		a.Name = "probe2"
		vxlan = h.LinkAdd(&netlink.Vxlan{LinkAttrs: a, FlowBased: true, Port: 8472})
		if clsact = veth; clsact == nil {
			var dev netlink.Link
			if dev, clsact = h.LinkByName("probe0"); clsact == nil {
				clsact = h.QdiscAdd(clsactQdisc(dev.Attrs().Index))
			}
		}
		return nil
	})
	if err != nil {
		return err, err, err
	}
	return veth, vxlan, clsact
}
