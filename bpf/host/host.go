// Package host holds the program on the node's outside devices: FromNetdev undoes masquerading for replies and delivers
// what is routed to workloads of this node.
package host

import "github.com/cilium/ebpf"

// FromNetdev is the name of the program on the ingress of an outside device.
const FromNetdev = "from_netdev"

// Spec is the object; its maps are to be replaced by the shared ones, and its variable `cfg` to be set.
func Spec() (*ebpf.CollectionSpec, error) { return loadRaw() }

// Object is the compiled object that Spec reads. It must not be changed.
func Object() []byte { return _RawBytes }
