package config

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hypha-net/hypha/internal/control/service"
)

const seedLen = 12

// Ways to tell the backend's node which service a client asked.
const (
	dispatchOpt    = "opt"
	dispatchGeneve = "geneve"
	dispatchIPIP   = "ipip"
)

// Dispatch says how the backend's node is told which service a client asked; neither: by options.
func (a *Agent) Dispatch() (geneve, ipip bool) {
	return a.LBDispatch == dispatchGeneve, a.LBDispatch == dispatchIPIP
}

// Values of bpf-lb-acceleration.
const (
	FastOff        = "disabled"
	FastNative     = "native"
	FastBestEffort = "best-effort"
	FastTesting    = "testing-only" // upstream's word for generic
	FastGeneric    = "generic"
)

// NodePortRange is node-port-range in numbers, inclusive. LOW,HIGH and LOW-HIGH are the same.
func (a *Agent) NodePortRange() (lo, hi uint16, err error) {
	ends := a.NodePorts
	if len(ends) == 1 {
		ends = strings.Split(ends[0], "-")
	}
	if len(ends) != 2 {
		return 0, 0, fmt.Errorf("%q: want LOW,HIGH", strings.Join(a.NodePorts, ","))
	}
	x, err1 := strconv.ParseUint(strings.TrimSpace(ends[0]), 10, 16)
	y, err2 := strconv.ParseUint(strings.TrimSpace(ends[1]), 10, 16)
	if err1 != nil || err2 != nil || x == 0 || x > y {
		return 0, 0, fmt.Errorf("%q: want LOW,HIGH", strings.Join(a.NodePorts, ","))
	}
	return uint16(x), uint16(y), nil
}

// MaglevSeed is bpf-lb-maglev-hash-seed in bytes.
func (a *Agent) MaglevSeed() (seed [seedLen]byte, err error) {
	b, err := base64.StdEncoding.DecodeString(a.LBMaglevSeed)
	if err != nil || len(b) != seedLen {
		return seed, fmt.Errorf("%q: want base64 of %d bytes, as `head -c%d /dev/urandom | base64 -w0` makes it", a.LBMaglevSeed, seedLen, seedLen)
	}
	return [seedLen]byte(b), nil
}

func (a *Agent) checkServices(bad func(string, string, ...any)) {
	lo, hi, err := a.NodePortRange()
	if err != nil {
		bad("node-port-range", "%v", err)
	} else if l, h, err := a.MasqRange(); err == nil && l <= hi && lo <= h {
		bad("node-port-range", "%d-%d overlaps masquerade-port-range (%s): a masqueraded connection would take a service's port", lo, hi, a.MasqPorts)
	}
	switch a.LBMode {
	case "snat", "dsr", "hybrid":
	default:
		bad("bpf-lb-mode", "%q is none of snat, dsr, hybrid", a.LBMode)
	}
	switch a.LBFast {
	case FastOff, FastNative, FastBestEffort, FastTesting, FastGeneric:
	default:
		bad("bpf-lb-acceleration", "%q is none of disabled, native, best-effort, testing-only, generic", a.LBFast)
	}
	if a.LBFast != FastOff && !a.KubeProxy {
		bad("bpf-lb-acceleration", "%s accelerates services, but kube-proxy-replacement is off", a.LBFast)
	}
	switch a.LBDispatch {
	case dispatchOpt:
	case dispatchGeneve, dispatchIPIP:
		if a.Tunnel() {
			bad("bpf-lb-dsr-dispatch", "%s goes with routing-mode native only: with the overlay set opt", a.LBDispatch)
		}
	default:
		bad("bpf-lb-dsr-dispatch", "%q is none of opt, geneve, ipip", a.LBDispatch)
	}
	if a.LBNoBackend != "reject" && a.LBNoBackend != "drop" {
		bad("service-no-backend-response", "%q is none of reject, drop", a.LBNoBackend)
	}
	if a.LBAlgorithm != "random" && a.LBAlgorithm != "maglev" {
		bad("bpf-lb-algorithm", "%q is none of random, maglev", a.LBAlgorithm)
	}
	if !slices.Contains(service.TableSizes, a.LBMaglevSize) {
		bad("bpf-lb-maglev-table-size", "%d is none of the primes %s", a.LBMaglevSize, strings.Trim(fmt.Sprint(service.TableSizes), "[]"))
	}
	if _, err := a.MaglevSeed(); err != nil {
		bad("bpf-lb-maglev-hash-seed", "%v", err)
	}
	if a.LBMax < 1024 || a.LBMax > 1<<24 {
		bad("bpf-lb-map-max", "%d is not between 1024 and %d", a.LBMax, 1<<24)
	}
}
