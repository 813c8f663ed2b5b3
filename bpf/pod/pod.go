// Package pod holds the programs on the host side of a workload's device pair: FromPod judges and delivers what the
// workload sends, ToPod judges what the node's own stack sends to it. One object serves all workloads.
package pod

import "github.com/cilium/ebpf"

// Names of the programs.
const (
	FromPod = "from_pod" // ingress of the host side
	ToPod   = "to_pod"   // egress of the host side
)

// Spec is the object; its maps are to be replaced by the shared ones, and its variable `cfg` to be set.
func Spec() (*ebpf.CollectionSpec, error) { return loadRaw() }

// Object is the compiled object that Spec reads. It must not be changed.
func Object() []byte { return _RawBytes }
