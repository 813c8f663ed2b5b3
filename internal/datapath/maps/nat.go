package maps

import (
	"bytes"
	"net/netip"
	"time"

	layout "github.com/hypha-net/hypha/bpf/maps"
)

// Translation is a row of nat_v2.
type Translation struct {
	Proto        uint8
	Reverse      bool           // what comes back; else workload -> outside, or client -> service
	Src, Dst     netip.AddrPort // of the packet before translation,
	ToSrc, ToDst netip.AddrPort // and after
	Age          time.Duration
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
		Dst: ap(k.Dst, k.Dport), ToSrc: ap(v.Src, v.Sport), ToDst: ap(v.Dst, v.Dport), Age: time.Duration(now - v.Created)}
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
			if now < v.Created+natGrace || hairpin(k, v) {
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

// hairpin says whether somebody reached themselves by way of a service. Of a workload that did no connection is on record, and of a node
// with a backend in its own stack there is one; the two look alike, so the table's own replacement has to do for both.
func hairpin(k *layout.NATKey, v *layout.NATValue) bool { return k.Src == v.Dst }

// connectionOf is the key of the connection to which a translation belongs: between who began it, under their own address, and
// the backend or whoever is outside.
func connectionOf(k *layout.NATKey, v *layout.NATValue) layout.CTKey {
	client, clientPort, peer, peerPort := k.Src, k.Sport, v.Dst, v.Dport
	if k.Dir == layout.NATReverse {
		client, clientPort, peer, peerPort = v.Dst, v.Dport, k.Src, k.Sport
	}
	order := bytes.Compare(client.B[:], peer.B[:])
	high := order > 0
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
	default:
		high = high || order == 0 && be16(clientPort) > be16(peerPort)
	}
	c := layout.CTKey{Addr: [2]layout.Addr{client, peer}, Port: [2]uint16{clientPort, peerPort}, Proto: k.Proto, Asker: asker}
	if high {
		c.Addr[0], c.Addr[1] = c.Addr[1], c.Addr[0]
		c.Port[0], c.Port[1] = c.Port[1], c.Port[0]
	}
	return c
}
