package service

import "time"

// grace is how long a set stays after nothing refers to it any more. A program that has read a frontend's row looks at the
// set within microseconds; one that comes too late all the same reads the row again.
const grace = time.Second

// pool holds immutable sets in the kernel, each content once, under numbers. Number 0 is no set.
type pool[C any] struct {
	put   func(id uint32, c C) error
	drop  func(id uint32, c C) error
	key   func(c C) string // the same for the same content; "" for the empty set
	byID  map[uint32]*set[C]
	byKey map[string]*set[C]
	idle  []idle[C] // in the order of time
	last  uint32    // number given
}

type set[C any] struct {
	id      uint32
	key     string
	content C
	refs    int
	since   time.Time // when the last reference went
}

// idle notes that a set lost its last reference; not true any more when that was taken again.
type idle[C any] struct {
	*set[C]
	at time.Time
}

func newPool[C any](put, drop func(uint32, C) error, key func(C) string) *pool[C] {
	return &pool[C]{put: put, drop: drop, key: key, byID: map[uint32]*set[C]{}, byKey: map[string]*set[C]{}}
}

// adopt takes a set that the kernel holds, with so many references to it.
func (p *pool[C]) adopt(id uint32, c C, refs int, now time.Time) {
	s := &set[C]{id: id, key: p.key(c), content: c, refs: refs, since: now}
	p.byID[id] = s
	p.last = max(p.last, id)
	if s.key != "" && (p.byKey[s.key] == nil || refs > 0) {
		p.byKey[s.key] = s
	}
	if refs == 0 {
		p.idle = append(p.idle, idle[C]{s, now})
	}
}

// take returns the number of the set with this content, written if it is not there, and counts a reference.
func (p *pool[C]) take(c C) (uint32, error) {
	id, fresh := p.stage(c)
	if fresh {
		if err := p.put(id, c); err != nil {
			p.discard(id)
			return 0, err
		}
	}
	return id, nil
}

// stage is take that does not write: a fresh set is to be written before anything names it, or discarded.
func (p *pool[C]) stage(c C) (id uint32, fresh bool) {
	key := p.key(c)
	if key == "" {
		return 0, false
	}
	s := p.byKey[key]
	if s == nil {
		s = &set[C]{id: p.next(), key: key, content: c}
		p.byID[s.id], p.byKey[key] = s, s
		fresh = true
	}
	s.refs++
	return s.id, fresh
}

// discard forgets a fresh set, with all references to it.
func (p *pool[C]) discard(id uint32) {
	if s := p.byID[id]; s != nil {
		delete(p.byID, id)
		delete(p.byKey, s.key)
	}
}

// next is a number that nothing has.
func (p *pool[C]) next() uint32 {
	for {
		p.last++
		if p.last != 0 && p.byID[p.last] == nil {
			return p.last
		}
	}
}

// leave takes a reference back.
func (p *pool[C]) leave(id uint32, now time.Time) {
	s := p.byID[id]
	if s == nil {
		return
	}
	if s.refs--; s.refs == 0 {
		s.since = now
		p.idle = append(p.idle, idle[C]{s, now})
	}
}

// sweep removes the sets that nothing has referred to for long enough.
func (p *pool[C]) sweep(now time.Time) error {
	for len(p.idle) > 0 && now.Sub(p.idle[0].at) >= grace {
		s := p.idle[0]
		if s.refs == 0 && s.since.Equal(s.at) {
			if err := p.drop(s.id, s.content); err != nil {
				return err
			}
			delete(p.byID, s.id)
			if p.byKey[s.key] == s.set {
				delete(p.byKey, s.key)
			}
		}
		p.idle = p.idle[1:]
	}
	return nil
}
