package identity

import (
	"errors"
	"fmt"

	"github.com/hypha-net/hypha/internal/model"
)

// ErrScopeFull says that a node-local scope has no number left: 16 million are in use.
var ErrScopeFull = errors.New("no node-local identity left")

const scopeSize = 1 << 24

// Scope numbers label sets whose number does not leave the node: model.IdentityScopeLocal for prefixes,
// model.IdentityScopeRemote for remote nodes by their labels. A number that has been released is given out again only
// after all others. Not safe for concurrent use.
type Scope struct {
	base   model.IdentityID
	next   model.IdentityID // below base
	byKey  map[string]model.IdentityID
	labels map[model.IdentityID]model.Labels
	users  map[model.IdentityID]int
}

// NewScope makes an empty scope. Its first number is its base; of the local scope, that base + 1, as is published.
func NewScope(base model.IdentityID) *Scope {
	s := &Scope{base: base, byKey: map[string]model.IdentityID{}, labels: map[model.IdentityID]model.Labels{}, users: map[model.IdentityID]int{}}
	if base == model.IdentityScopeLocal {
		s.next = 1
	}
	return s
}

// Acquire returns the number of a label set, giving it one if it has none, and counts a user.
func (s *Scope) Acquire(labels model.Labels) (id model.IdentityID, isNew bool, err error) {
	key := labels.Key()
	if id, ok := s.byKey[key]; ok {
		s.users[id]++
		return id, false, nil
	}
	for range scopeSize {
		id = s.base | s.next
		s.next = (s.next + 1) % scopeSize
		if _, used := s.labels[id]; !used && id != model.IdentityScopeLocal {
			s.byKey[key], s.labels[id], s.users[id] = id, labels, 1
			return id, true, nil
		}
	}
	return 0, false, ErrScopeFull
}

// Restore gives a label set the number it had before a restart, and counts a user.
func (s *Scope) Restore(labels model.Labels, id model.IdentityID) error {
	key := labels.Key()
	old, known := s.byKey[key]
	_, used := s.labels[id]
	switch {
	case id&model.IdentityScopeMask != s.base:
		return fmt.Errorf("restore identity %d: outside its scope", id)
	case known && old == id:
		s.users[id]++
		return nil
	case known:
		return fmt.Errorf("restore identity %d: its labels have %d already", id, old)
	case used:
		return fmt.Errorf("restore identity %d: it has other labels already", id)
	}
	s.byKey[key], s.labels[id], s.users[id] = id, labels, 1
	s.Skip(id)
	return nil
}

// Skip makes a number, and those before it, the last to be given out: somebody else still knows it.
func (s *Scope) Skip(id model.IdentityID) {
	if n := id &^ model.IdentityScopeMask; id&model.IdentityScopeMask == s.base && n >= s.next {
		s.next = (n + 1) % scopeSize
	}
}

// Release gives back one use, and says whether it was the last one: then the number means nothing any more.
func (s *Scope) Release(id model.IdentityID) (gone bool) {
	if s.users[id] == 0 {
		return false
	}
	if s.users[id]--; s.users[id] > 0 {
		return false
	}
	delete(s.byKey, s.labels[id].Key())
	delete(s.labels, id)
	delete(s.users, id)
	return true
}

// Labels are what a number stands for.
func (s *Scope) Labels(id model.IdentityID) (model.Labels, bool) {
	ls, ok := s.labels[id]
	return ls, ok
}

// RemoteNode are the labels of a node seen from another one: reserved:remote-node, and its own as node labels; reserved:kube-apiserver
// besides, where there is an API server.
func RemoteNode(n *model.Node, api bool) model.Labels {
	ls := []model.Label{{Source: model.SourceReserved, Key: model.IdentityRemoteNode.String()}}
	if api {
		ls = append(ls, model.Label{Source: model.SourceReserved, Key: model.IdentityKubeAPI.String()})
	}
	for _, l := range n.Labels {
		ls = append(ls, model.Label{Source: model.SourceNode, Key: l.Key, Value: l.Value})
	}
	return model.NewLabels(ls...)
}
