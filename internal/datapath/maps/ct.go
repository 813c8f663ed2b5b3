package maps

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	layout "github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/model"
)

// Connection is a row of ct_v1, seen from its initiator. For ICMP echo the source port is the id and the destination
// port the request type.
type Connection struct {
	Proto       uint8
	Src, Dst    netip.AddrPort
	Expires     time.Duration // from now; negative: it has expired
	Packets     [2]uint64     // original, reply; only with accounting
	Bytes       [2]uint64
	Epoch       uint32    // of the verdict on record
	Rules       [2]uint32 // by model.Direction
	SrcIdentity model.IdentityID
	DstIdentity model.IdentityID
	TCPFlags    [2]uint8
	SeenReply   bool
	Closing     bool
	Audit       bool
	NAT         bool
}

// Connections calls fn for every connection on record until it says false.
func (m *Maps) Connections(fn func(Connection) bool) error {
	now := Now()
	return each(m.ct, func(k *layout.CTKey, v *layout.CTValue) bool { return fn(connectionFrom(k, v, now)) })
}

func connectionFrom(k *layout.CTKey, v *layout.CTValue, now uint64) Connection {
	end := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom16(k.Addr[i].B).Unmap(), be16(k.Port[i]))
	}
	src, dst := 0, 1
	if v.Flags&layout.CTOrigHigh != 0 {
		src, dst = 1, 0
	}
	return Connection{Proto: k.Proto, Src: end(src), Dst: end(dst), Expires: time.Duration(v.Expires - now),
		Packets: v.Packets, Bytes: v.Bytes, Epoch: v.Epoch, Rules: v.Rule, SrcIdentity: model.IdentityID(v.SrcIdentity),
		DstIdentity: model.IdentityID(v.DstIdentity), TCPFlags: v.TcpFlags, SeenReply: v.Flags&layout.CTSeenReply != 0,
		Closing: v.Flags&(layout.CTFinOrig|layout.CTFinReply|layout.CTRst) != 0, Audit: v.Flags&layout.CTAudit != 0,
		NAT: v.Flags&layout.CTNAT != 0}
}

// Swept is what a collection of expired rows found.
type Swept struct{ Live, Removed int }

// SweepConnections removes connections whose time is over.
func (m *Maps) SweepConnections() (Swept, error) {
	return sweep(m.ct, func(now uint64) func(*layout.CTKey, *layout.CTValue) bool {
		return func(_ *layout.CTKey, v *layout.CTValue) bool { return v.Expires < now }
	})
}

// sweep removes the rows that dead tells. A row that the datapath revives between the two looks is looked at again
// before it goes; what remains of the race costs one fresh judgement.
func sweep[K comparable, V any](h *handle, dead func(now uint64) func(*K, *V) bool) (Swept, error) {
	var s Swept
	var gone []K
	is := dead(Now())
	err := each(h, func(k *K, v *V) bool {
		if is(k, v) {
			gone = append(gone, *k)
		} else {
			s.Live++
		}
		return true
	})
	if err != nil {
		return s, err
	}
	still := gone[:0]
	for _, k := range gone {
		v, ok, err := get[K, V](h, k)
		if err != nil {
			return s, err
		}
		if ok && is(&k, &v) {
			still = append(still, k)
		}
	}
	for len(still) > 0 {
		part := still[:min(len(still), batchRows)]
		if err := delAll(h, part); err != nil {
			return s, err
		}
		s.Removed += len(part)
		still = still[len(part):]
	}
	return s, nil
}

// FlushConnections forgets all connections and their masquerading. Established traffic is judged afresh; what was
// masqueraded breaks.
func (m *Maps) FlushConnections() (int, error) {
	s, err := sweep(m.ct, func(uint64) func(*layout.CTKey, *layout.CTValue) bool {
		return func(*layout.CTKey, *layout.CTValue) bool { return true }
	})
	if err != nil {
		return s.Removed, err
	}
	_, err = sweep(m.nat, func(uint64) func(*layout.NATKey, *layout.NATValue) bool {
		return func(*layout.NATKey, *layout.NATValue) bool { return true }
	})
	return s.Removed, err
}

// Now reads the clock of the datapath (bpf_ktime_get_ns), in nanoseconds.
func Now() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0 // cannot fail for this clock; 0 expires nothing
	}
	return uint64(ts.Nano())
}
