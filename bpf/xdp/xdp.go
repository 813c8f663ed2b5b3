// Package xdp holds the programs that see a packet from outside before the kernel makes one of its own of it: Prefilter drops
// what comes from denied sources.
package xdp

import "github.com/cilium/ebpf"

// Names of the programs on an outside device: one with a link layer, and one where packets begin with their IP header.
const (
	Prefilter   = "prefilter"
	PrefilterL3 = "prefilter_l3"
)

// PrefilterSpec is the object of Prefilter and PrefilterL3; its maps are to be replaced by the shared ones.
func PrefilterSpec() (*ebpf.CollectionSpec, error) { return loadPrefilter() }

// PrefilterObject is the compiled object that PrefilterSpec reads. It must not be changed.
func PrefilterObject() []byte { return _PrefilterBytes }
