package policy

import (
	"encoding/binary"
	"strconv"
	"strings"

	"github.com/hypha-net/hypha/internal/model"
)

// cell is what the sets in use cannot tell apart: peers that match the same live selectors and have the same
// ports behind the names in use.
type cell struct {
	sig     string
	sels    []*liveSel // by id
	named   []model.NamedPort
	class   model.ClassID // 0: none yet
	members map[model.Peer]*identity
}

func lower(s string) string { return strings.ToLower(s) }

func signature(sels []*liveSel, named []model.NamedPort) string {
	b := make([]byte, 0, 4*len(sels)+1)
	for _, s := range sels {
		b = binary.BigEndian.AppendUint32(b, s.id)
	}
	return string(b) + "|" + portsKey(named)
}

func portsKey(named []model.NamedPort) string {
	var b strings.Builder
	for _, p := range named {
		b.WriteString(lower(p.Name) + " " + strconv.Itoa(int(p.Proto)) + " " + strconv.Itoa(int(p.Port)) + ";")
	}
	return b.String()
}

// place puts an identity into the cell where it belongs now.
func (e *Engine) place(id *identity) {
	sels := e.live.of(id)
	named := e.live.named(id)
	sig := signature(sels, named)
	if id.cell != nil && id.cell.sig == sig {
		return
	}
	e.unplace(id)
	c := e.cells[sig]
	if c == nil {
		c = &cell{sig: sig, sels: sels, named: named, members: map[model.Peer]*identity{}}
		e.cells[sig] = c
		for _, s := range sels {
			s.cells[c] = true
		}
	}
	c.members[id.peer] = id
	id.cell = c
}

func (e *Engine) unplace(id *identity) {
	c := id.cell
	if c == nil {
		return
	}
	id.cell = nil
	if delete(c.members, id.peer); len(c.members) == 0 {
		delete(e.cells, c.sig)
		for _, s := range c.sels {
			delete(s.cells, c)
		}
	}
}
