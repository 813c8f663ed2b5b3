package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// id is struct inet_diag_sockid (include/uapi/linux/inet_diag.h): ports and addresses in network order (IPv4 in the first four
// of sixteen bytes), device, cookie (low half first).
type id [48]byte

// Where its parts are.
const (
	idDport  = 2
	idDst    = 20
	idCookie = 40
)

// Where the id begins: in a request (struct inet_diag_req_v2: family, protocol, extensions, a gap, states) behind its
// states, in an answer (struct inet_diag_msg: family, state, timer, retransmits) before what else it says.
const (
	requestIDAt = 8
	answerIDAt  = 4
)

func (x *id) cookie() uint64 {
	return uint64(binary.NativeEndian.Uint32(x[idCookie:])) | uint64(binary.NativeEndian.Uint32(x[idCookie+4:]))<<32
}

// peer is the socket in our terms.
func (x *id) peer(family, proto uint8) Peer {
	size := 16
	if family == unix.AF_INET {
		size = 4
	}
	a, _ := netip.AddrFromSlice(x[idDst : idDst+size])
	return Peer{Cookie: x.cookie(), Proto: proto, To: netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(x[idDport:]))}
}

func request(family, proto uint8, states uint32, x id) []byte {
	b := make([]byte, requestIDAt, requestIDAt+len(x))
	b[0], b[1] = family, proto
	binary.NativeEndian.PutUint32(b[4:], states)
	return append(b, x[:]...)
}

// list calls fn for the sockets in these states, a set of bits.
func list(family, proto uint8, states uint32, fn func(id)) error {
	req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	req.AddRawData(request(family, proto, states, id{}))
	var short error
	err := req.ExecuteIter(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY, func(msg []byte) bool {
		if len(msg) < answerIDAt+len(id{}) {
			short = fmt.Errorf("the kernel described a socket in %d bytes", len(msg))
			return false
		}
		fn(id(msg[answerIDAt : answerIDAt+len(id{})]))
		return true
	})
	return errors.Join(err, short)
}

// destroy ends one socket: ENOENT if no socket has this id, cookie included.
func destroy(family, proto uint8, x id) error {
	req := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
	req.AddRawData(request(family, proto, 0, x))
	_, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return ErrUnsupported
	}
	return err
}
