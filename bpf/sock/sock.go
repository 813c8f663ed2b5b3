// Package sock holds the programs on the sockets of a control group: where a process connects or sends to a service, they
// put a backend in its place, and the service in the backend's place where it asks whom it talks to.
package sock

import "github.com/cilium/ebpf"

// Names of the programs.
const (
	Connect4 = "sock_connect4"
	Connect6 = "sock_connect6"
	SendMsg4 = "sock_sendmsg4"
	SendMsg6 = "sock_sendmsg6"
	RecvMsg4 = "sock_recvmsg4"
	RecvMsg6 = "sock_recvmsg6"
	Peer4    = "sock_peer4" // getpeername
	Peer6    = "sock_peer6"
	Bind4    = "sock_bind4" // after bind
	Bind6    = "sock_bind6"
)

// Hooks are where in a control group each program belongs.
func Hooks() map[string]ebpf.AttachType {
	return map[string]ebpf.AttachType{
		Connect4: ebpf.AttachCGroupInet4Connect, Connect6: ebpf.AttachCGroupInet6Connect,
		SendMsg4: ebpf.AttachCGroupUDP4Sendmsg, SendMsg6: ebpf.AttachCGroupUDP6Sendmsg,
		RecvMsg4: ebpf.AttachCGroupUDP4Recvmsg, RecvMsg6: ebpf.AttachCGroupUDP6Recvmsg,
		Peer4: ebpf.AttachCgroupInet4GetPeername, Peer6: ebpf.AttachCgroupInet6GetPeername,
		Bind4: ebpf.AttachCGroupInet4PostBind, Bind6: ebpf.AttachCGroupInet6PostBind,
	}
}

// Spec is the object; its maps are to be replaced by the shared ones, and its variable `cfg` to be set.
func Spec() (*ebpf.CollectionSpec, error) { return loadRaw() }

// Object is the compiled object that Spec reads. It must not be changed.
func Object() []byte { return _RawBytes }
