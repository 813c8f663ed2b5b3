package maps

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	layout "github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/model"
)

// dumpLB is dump for the maps of services.
func (m *Maps) dumpLB(name string, row *[]Column, next func() bool) error {
	switch name {
	case LBAddress:
		return rows(m.lbAddress, row, next, func(k *layout.Addr, v *uint32) []Column {
			a := frontendAddrFrom(*v)
			return []Column{{"ADDRESS", anyAddr(k).String()}, {"FLAGS", flags(flag{a.VIP, "vip"}, flag{a.Node, "node"})}}
		})
	case LBFrontend:
		return rows(m.lbFrontend, row, next, frontendColumns)
	case LBSlot:
		return rows(m.lbSlot, row, next, func(k *layout.LBSlotKey, v *layout.LBBackend) []Column {
			s := slotFrom(v)
			return []Column{{"SLOTS", num(k.Slots)}, {"INDEX", num(k.Index)}, {"BACKEND", s.To.String()}, {"PROTOCOL", num(s.Proto)}}
		})
	case LBMaglev:
		return rows(m.lbMaglev, row, next, func(k *layout.LBMaglevKey, v *layout.LBMaglev) []Column {
			return []Column{{"SLOTS", num(k.Slots)}, {"FROM", num(uint64(k.Piece) * uint64(layout.LBPiece))},
				{"INDEXES", strings.Trim(fmt.Sprint(v.Index), "[]")}}
		})
	case LBMember:
		return rows(m.lbMember, row, next, func(k *layout.LBMember, _ *uint8) []Column {
			return []Column{{"SLOTS", num(k.Slots)}, {"BACKEND", memberFrom(k).String()}}
		})
	case LBAffinity:
		now := Now()
		return rows(m.lbAffinity, row, next, func(k *layout.LBAffinityKey, v *layout.LBAffinity) []Column {
			s := stayFrom(k, v, now)
			return []Column{{"SERVICE", num(s.Service)}, {"CLIENT", s.Client}, {"BACKEND", s.Backend.String()},
				{"AGE", s.Age.Round(time.Second).String()}}
		})
	case LBReverse:
		return rows(m.lbReverse, row, next, func(k *layout.LBReverseKey, v *layout.LBReverse) []Column {
			t := talkFrom(k, v)
			return []Column{{"SOCKET", num(t.Socket)}, {"PROTOCOL", num(t.Proto)}, {"BACKEND", t.Back.String()}, {"FRONTEND", t.Front.String()},
				{"SERVICE", num(t.Service)}}
		})
	case LBSource:
		return rows(m.lbSource, row, next, func(k *layout.LBSourceKey, _ *uint8) []Column {
			return []Column{{"RANGES", num(k.Ranges)}, {"PREFIX", sourceFrom(k).String()}}
		})
	}
	return nil
}

func frontendColumns(k *layout.LBFrontendKey, v *layout.LBFrontend) []Column {
	key, f := frontendKeyFrom(k), frontendFrom(v)
	scope := "external"
	if key.Scope == model.ScopeInternal {
		scope = "internal"
	}
	how := "random"
	if f.Table != 0 {
		how = "maglev " + strconv.Itoa(int(f.Table))
	}
	return []Column{{"FRONTEND", netip.AddrPortFrom(key.Addr, key.Port).String()}, {"PROTOCOL", num(key.Proto)}, {"SCOPE", scope},
		{"SERVICE", num(f.Service)}, {"TYPE", f.Type.String()}, {"SLOTS", num(f.Slots)}, {"COUNT", num(f.Count)}, {"SELECTION", how},
		{"AFFINITY", (time.Duration(f.Affinity) * time.Second).String()},
		{"RANGES", num(f.Ranges)}, {"FLAGS", flags(flag{f.RangesDeny, "ranges-deny"}, flag{f.Local, "local"})}}
}
