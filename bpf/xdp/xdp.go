// Package xdp holds the programs that see a packet from outside before the kernel makes one of its own of it: Prefilter drops
// what comes from denied sources; Fast does that too, and sends on what goes by way of a service to another node and is known already.
package xdp

import "github.com/cilium/ebpf"

// Names of the programs on an outside device: one with a link layer, and one where packets begin with their IP header.
const (
	Prefilter   = "prefilter"
	PrefilterL3 = "prefilter_l3"
	Fast        = "fast" // with a link layer
)

// PrefilterSpec is the object of Prefilter and PrefilterL3; its maps are to be replaced by the shared ones.
func PrefilterSpec() (*ebpf.CollectionSpec, error) { return loadPrefilter() }

// PrefilterObject is the compiled object that PrefilterSpec reads. It must not be changed.
func PrefilterObject() []byte { return _PrefilterBytes }

// FastSpec is the object of Fast; its maps are to be replaced by the shared ones, and its variable `cfg` to be set.
func FastSpec() (*ebpf.CollectionSpec, error) { return loadFast() }

// FastObject is the compiled object that FastSpec reads. It must not be changed.
func FastObject() []byte { return _FastBytes }
