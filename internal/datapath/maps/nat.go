package maps

import (
	"bytes"
	"net/netip"
	"time"

	layout "github.com/hypha-net/hypha/bpf/maps"
)

// Translation is a row of nat_v1.
type Translation struct {
	Proto    uint8
	Reverse  bool           // outside -> node port; else workload -> outside
	Src, Dst netip.AddrPort // of the packet before translation
	To       netip.AddrPort // forward: the new source; reverse: the new destination
	IfIndex  uint32         // device it leaves by
	Age      time.Duration
}

// Translations calls fn for every row until it says false.
func (m *Maps) Translations(fn func(Translation) bool) error {
	now := Now()
	return each(m.nat, func(k *layout.NATKey, v *layout.NATValue) bool { return fn(translationFrom(k, v, now)) })
}

func translationFrom(k *layout.NATKey, v *layout.NATValue, now uint64) Translation {
	ap := func(a layout.Addr, port uint16) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom16(a.B).Unmap(), be16(port))
	}
	return Translation{Proto: k.Proto, Reverse: k.Dir == layout.NATReverse, Src: ap(k.Src, k.Sport),
		Dst: ap(k.Dst, k.Dport), To: ap(v.Addr, v.Port), IfIndex: v.Ifindex, Age: time.Duration(now - v.Created)}
}

// natGrace is how old a translation must be before the lack of its connection counts.
const natGrace = uint64(time.Minute)

// ICMP echo: the connection table keeps the request type where other protocols have the server's port.
const (
	protoICMP, echo4  = 1, 8
	protoICMP6, echo6 = 58, 128
)

// SweepTranslations removes translations whose connection is no longer on record. Call it after SweepConnections.
func (m *Maps) SweepTranslations() (Swept, error) {
	var failed error
	s, err := sweep(m.nat, func(now uint64) func(*layout.NATKey, *layout.NATValue) bool {
		return func(k *layout.NATKey, v *layout.NATValue) bool {
			if now < v.Created+natGrace {
				return false
			}
			ck := connectionOf(k, v)
			_, ok, err := get[layout.CTKey, layout.CTValue](m.ct, ck)
			if err != nil {
				failed = err
			}
			return err == nil && !ok
		}
	})
	if err == nil {
		err = failed
	}
	return s, err
}

// connectionOf is the key of the connection to which a translation belongs.
func connectionOf(k *layout.NATKey, v *layout.NATValue) layout.CTKey {
	pod, podPort, peer, peerPort := k.Src, k.Sport, k.Dst, k.Dport
	if k.Dir == layout.NATReverse {
		pod, podPort, peer, peerPort = v.Addr, v.Port, k.Src, k.Sport
	}
	high := bytes.Compare(pod.B[:], peer.B[:]) > 0
	var asker uint8
	switch k.Proto {
	case protoICMP, protoICMP6:
		peerPort = be16(echo4)
		if k.Proto == protoICMP6 {
			peerPort = be16(echo6)
		}
		if high {
			asker = 1
		}
	}
	c := layout.CTKey{Addr: [2]layout.Addr{pod, peer}, Port: [2]uint16{podPort, peerPort}, Proto: k.Proto, Asker: asker}
	if high {
		c.Addr[0], c.Addr[1] = c.Addr[1], c.Addr[0]
		c.Port[0], c.Port[1] = c.Port[1], c.Port[0]
	}
	return c
}
