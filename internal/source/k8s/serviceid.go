package k8s

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"strings"

	"github.com/hypha-net/hypha/internal/model"
)

// serviceIDs gives frontends their numbers, the same on every node, without asking anybody: a number is a hash of the frontend. All
// nodes must agree, since clients find their backends by hashes of which the number is a part, whatever node they come to.
//
// Of two frontends with one hash the lesser keeps it and the other takes its next, with all that follows from that. Who has which
// number in the end depends on which frontends there are, not on the order in which they were seen: this is the stable matching
// of frontends, each with its numbers in an order of its own, and numbers, each of which prefers lesser frontends.
type serviceIDs struct {
	taken map[model.ServiceID]string
	given map[string]given
	moved map[string]bool // who does not have its first number
	hash  func(frontend string, try int) model.ServiceID
}

// frontendKey is what a frontend is known by here: version, address, port, protocol, scope. Numbers depend on it.
func frontendKey(f model.Frontend) string {
	b := make([]byte, 1, 21)
	b[0] = 4
	if f.Addr.Is6() {
		b[0] = 6
	}
	a := f.Addr.As16()
	b = binary.BigEndian.AppendUint16(append(b, a[:]...), f.Port)
	return string(append(b, f.Proto, byte(f.Scope)))
}

type given struct {
	id  model.ServiceID
	try int
}

func newServiceIDs() *serviceIDs {
	return &serviceIDs{taken: map[model.ServiceID]string{}, given: map[string]given{}, moved: map[string]bool{}, hash: hashFrontend}
}

// maxServiceID is the greatest number of a service.
const maxServiceID = math.MaxInt32

func hashFrontend(frontend string, try int) model.ServiceID {
	sum := sha256.Sum256(binary.BigEndian.AppendUint32([]byte(frontend), uint32(try)))
	return model.ServiceID(binary.BigEndian.Uint32(sum[:])%maxServiceID) + 1
}

// add gives a frontend its number. changed are the frontends that have another number than before, this one among them.
func (s *serviceIDs) add(frontend string) (changed []string) {
	if _, ok := s.given[frontend]; ok {
		return nil
	}
	changed = append(changed, frontend)
	for try := 0; ; try++ {
		id := s.hash(frontend, try)
		other, taken := s.taken[id]
		if taken && strings.Compare(other, frontend) <= 0 {
			continue
		}
		s.taken[id], s.given[frontend] = frontend, given{id, try}
		s.note(frontend, try)
		if !taken {
			return changed
		}
		frontend, try = other, s.given[other].try // which has to look on
		changed = append(changed, frontend)
	}
}

func (s *serviceIDs) note(frontend string, try int) {
	if try == 0 {
		delete(s.moved, frontend)
	} else {
		s.moved[frontend] = true
	}
}

// remove takes a frontend's number away. changed are the frontends that have another number now; this one is not among them.
func (s *serviceIDs) remove(frontend string) (changed []string) {
	g, ok := s.given[frontend]
	if !ok {
		return nil
	}
	delete(s.taken, g.id)
	delete(s.given, frontend)
	delete(s.moved, frontend)
	if len(s.moved) == 0 {
		return nil
	}
	// Whoever had to give way, perhaps to this one, tries again from its first number.
	before := map[string]model.ServiceID{}
	for f := range s.moved {
		before[f] = s.given[f].id
		delete(s.taken, s.given[f].id)
		delete(s.given, f)
	}
	clear(s.moved)
	for f := range before {
		for _, c := range s.add(f) { // it can push away only those that are in before, too
			if _, ok := before[c]; !ok {
				changed = append(changed, c)
			}
		}
	}
	for f, id := range before {
		if s.given[f].id != id {
			changed = append(changed, f)
		}
	}
	return changed
}

func (s *serviceIDs) of(frontend string) model.ServiceID { return s.given[frontend].id }
