package event

import (
	"encoding/binary"
	"net/netip"
	"time"
	"unsafe"

	layout "github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/model"
)

// Sizes of the two kinds of records.
const (
	recordSize = int(unsafe.Sizeof(layout.Event{}))
	sockSize   = int(unsafe.Sizeof(layout.SockEvent{}))
)

// decoder turns the records of one CPU's ring into events.
type decoder struct {
	cpu  int
	wall int64 // what to add to the datapath's clock to get the wall clock, ns
}

// tick measures the clocks against each other; the wall clock may be set.
func (d *decoder) tick() { d.wall = time.Now().UnixNano() - int64(maps.Now()) }

// decode fills e from a record; false if the record has another layout.
func (d *decoder) decode(b []byte, e *model.Event) bool {
	if d.wall == 0 {
		d.tick()
	}
	switch len(b) {
	case recordSize:
		d.packet(b, e)
	case sockSize:
		d.socket(b, e)
	default:
		return false
	}
	return true
}

// packet fills e from the record of a packet.
func (d *decoder) packet(b []byte, e *model.Event) {
	var r layout.Event
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&r)), recordSize), b)
	*e = model.Event{
		Time: time.Unix(0, int64(r.Time)+d.wall), Type: r.Type, Code: r.Code, Reason: r.Reason,
		Flags: model.EventFlags(r.Flags), Proto: r.Proto, TCPFlags: r.TcpFlags,
		EthProto: be16(r.EthProto), SrcPort: be16(r.Sport), DstPort: be16(r.Dport),
		SrcEndpoint: r.SrcEp, DstEndpoint: r.DstEp,
		SrcIdentity: model.IdentityID(r.SrcIdentity), DstIdentity: model.IdentityID(r.DstIdentity),
		Rule: model.RuleID(r.Rule), IfIndex: r.Ifindex, Len: r.Len, VNI: r.Vni,
		Src: ip(&r.Src), Dst: ip(&r.Dst), Xlated: ip(&r.Xlated), Tunnel: ip(&r.Tunnel), Front: front(&r),
		SrcMAC: r.SrcMac, DstMAC: r.DstMac, File: r.File, Line: r.Line, CPU: d.cpu,
	}
}

// front is the service of a packet's connection, invalid if there is none.
func front(r *layout.Event) netip.AddrPort {
	if a := ip(&r.Front); a.IsValid() {
		return netip.AddrPortFrom(a, be16(r.FrontPort))
	}
	return netip.AddrPort{}
}

// socket fills e from the record of a socket.
func (d *decoder) socket(b []byte, e *model.Event) {
	var r layout.SockEvent
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&r)), sockSize), b)
	*e = model.Event{
		Time: time.Unix(0, int64(r.Time)+d.wall), Type: r.Type, Code: r.Code, Flags: model.EventFlags(r.Flags), Proto: r.Proto,
		Socket: r.Socket, Cgroup: r.Cgroup, Netns: r.Netns, Front: netip.AddrPortFrom(ip(&r.Front), be16(r.FrontPort)),
		File: r.File, Line: r.Line, CPU: d.cpu,
	}
	back, backPort := ip(&r.Back), be16(r.BackPort)
	switch {
	case r.Type != layout.EventTraceSock || r.Code == layout.SockPreFwd:
		e.Dst, e.DstPort = e.Front.Addr(), e.Front.Port()
	case r.Code == layout.SockPostFwd:
		e.Dst, e.DstPort = back, backPort
	case r.Code == layout.SockPreRev:
		e.Src, e.SrcPort = back, backPort
	case r.Code == layout.SockPostRev:
		e.Src, e.SrcPort = e.Front.Addr(), e.Front.Port()
	}
}

func ip(a *layout.Addr) netip.Addr {
	if a.B == [16]byte{} {
		return netip.Addr{}
	}
	return netip.AddrFrom16(a.B).Unmap()
}

// be16 reads a number in network byte order as it lies in memory.
func be16(n uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], n)
	return binary.BigEndian.Uint16(b[:])
}
