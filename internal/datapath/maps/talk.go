package maps

import (
	"net/netip"

	layout "github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/model"
)

// Talks reads what sockets believe, of sockets that have gone too: these rows go when the room is needed.
func (m *Maps) Talks(fn func(model.Talk) bool) error {
	return each(m.lbReverse, func(k *layout.LBReverseKey, v *layout.LBReverse) bool { return fn(talkFrom(k, v)) })
}

func talkFrom(k *layout.LBReverseKey, v *layout.LBReverse) model.Talk {
	return model.Talk{Socket: k.Socket, Proto: k.Proto, Back: netip.AddrPortFrom(k.Addr.Netip(), be16(k.Port)),
		Front: netip.AddrPortFrom(v.Addr.Netip(), be16(v.Port)), Service: model.ServiceID(v.Service)}
}
