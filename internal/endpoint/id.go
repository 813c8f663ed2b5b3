package endpoint

import (
	"fmt"
	"math/rand/v2"
)

// idPool gives out endpoint numbers 1..65535 in turn, so that one is not used again soon after it was given back. It
// begins anywhere, because it does not remember across restarts which were used last.
type idPool struct {
	used map[uint16]bool
	next uint16
}

func newIDPool() idPool { return idPool{used: map[uint16]bool{}, next: uint16(rand.N(65535) + 1)} }

// take reserves a free number.
func (p *idPool) take() (uint16, error) {
	for range 65535 {
		id := p.next
		if p.next++; p.next == 0 {
			p.next = 1
		}
		if !p.used[id] {
			p.used[id] = true
			return id, nil
		}
	}
	return 0, fmt.Errorf("endpoint number: %w", ErrFull)
}

// claim reserves this very number, false if it is taken or not one.
func (p *idPool) claim(id uint16) bool {
	if id == 0 || p.used[id] {
		return false
	}
	p.used[id] = true
	return true
}

func (p *idPool) give(id uint16) { delete(p.used, id) }
