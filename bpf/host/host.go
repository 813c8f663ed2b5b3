// Package host holds the programs on the node's outside devices: FromNetdev undoes masquerading for replies, delivers
// what is routed to workloads of this node, and sends services' clients to backends; ToNetdev gives the answers of backends in the
// node's own stack the service's address.
package host

import "github.com/cilium/ebpf"

// Names of the programs, on the ingress and the egress of an outside device.
const (
	FromNetdev = "from_netdev"
	ToNetdev   = "to_netdev"
)

// Spec is the object; its maps are to be replaced by the shared ones, and its variable `cfg` to be set.
func Spec() (*ebpf.CollectionSpec, error) { return loadRaw() }

// Object is the compiled object that Spec reads. It must not be changed.
func Object() []byte { return _RawBytes }
