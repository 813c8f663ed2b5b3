// Package overlay holds the programs on the tunnel device: FromOverlay admits what other nodes' workloads and stacks
// send, ToOverlay gives the node's own packets their tunnel key.
package overlay

import "github.com/cilium/ebpf"

// Names of the programs.
const (
	FromOverlay = "from_overlay" // ingress of the tunnel device
	ToOverlay   = "to_overlay"   // egress of the tunnel device
)

// Spec is the object; its maps are to be replaced by the shared ones, and its variable `cfg` to be set.
func Spec() (*ebpf.CollectionSpec, error) { return loadRaw() }

// Object is the compiled object that Spec reads. It must not be changed.
func Object() []byte { return _RawBytes }
