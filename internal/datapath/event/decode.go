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

const recordSize = int(unsafe.Sizeof(layout.Event{}))

// decoder turns the records of one CPU's ring into events.
type decoder struct {
	cpu  int
	wall int64 // what to add to the datapath's clock to get the wall clock, ns
}

// tick measures the clocks against each other; the wall clock may be set.
func (d *decoder) tick() { d.wall = time.Now().UnixNano() - int64(maps.Now()) }

// decode fills e from a record; false if the record has another layout.
func (d *decoder) decode(b []byte, e *model.Event) bool {
	if len(b) != recordSize {
		return false
	}
	if d.wall == 0 {
		d.tick()
	}
	var r layout.Event
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&r)), recordSize), b)
	*e = model.Event{
		Time: time.Unix(0, int64(r.Time)+d.wall), Type: r.Type, Code: r.Code, Reason: r.Reason,
		Flags: model.EventFlags(r.Flags), Proto: r.Proto, TCPFlags: r.TcpFlags,
		EthProto: be16(r.EthProto), SrcPort: be16(r.Sport), DstPort: be16(r.Dport),
		SrcEndpoint: r.SrcEp, DstEndpoint: r.DstEp,
		SrcIdentity: model.IdentityID(r.SrcIdentity), DstIdentity: model.IdentityID(r.DstIdentity),
		Rule: model.RuleID(r.Rule), IfIndex: r.Ifindex, Len: r.Len, VNI: r.Vni,
		Src: ip(&r.Src), Dst: ip(&r.Dst), Xlated: ip(&r.Xlated), Tunnel: ip(&r.Tunnel),
		SrcMAC: r.SrcMac, DstMAC: r.DstMac, File: r.File, Line: r.Line, CPU: d.cpu,
	}
	return true
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
