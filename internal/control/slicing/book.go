// Package slicing decides which endpoint of the cluster is in which slice. It is pure: endpoints and slices are told, and what the slices
// are to be is asked. Endpoints of one namespace are together, an endpoint stays where it is for as long as there is room for it, and
// where one has to move it is in its new slice before it leaves the old one, so that who reads slices always finds it.
package slicing

import (
	"cmp"
	"maps"
	"slices"
)

// Key is the name of an endpoint.
type Key struct{ Namespace, Name string }

// Slice is one as it is stored, or is to be.
type Slice[V any] struct {
	Namespace string
	Entries   map[string]V // by the name of the endpoint
	Twice     bool         // it says something twice, so it is not as it should be, whatever the entries are
}

// Book knows the endpoints and the slices of a cluster. What is told before Begin is where it starts from.
type Book[V any] struct {
	most  int
	equal func(a, b V) bool
	fresh func() string // a name that no slice has

	begun  bool
	want   map[Key]V
	at     map[Key]string             // the slice in which an endpoint is to be
	parts  map[string]*part           // slices as they are to be
	homes  map[string]map[string]bool // slices by namespace
	stored map[string]*Slice[V]       // slices as they are stored
	extra  map[Key]map[string]bool    // slices that have an endpoint that is to be in another one, or in none
	due    map[string]bool            // slices that may have to be written
}

// part is a slice as it is to be.
type part struct {
	namespace string
	names     map[string]bool
}

// New makes a book of slices that have so many endpoints at most. fresh gives names of new slices.
func New[V any](most int, equal func(a, b V) bool, fresh func() string) *Book[V] {
	return &Book[V]{most: most, equal: equal, fresh: fresh, want: map[Key]V{}, at: map[Key]string{}, parts: map[string]*part{},
		homes: map[string]map[string]bool{}, stored: map[string]*Slice[V]{}, extra: map[Key]map[string]bool{}, due: map[string]bool{}}
}

// Put tells of an endpoint, or what it is now.
func (b *Book[V]) Put(k Key, v V) {
	if old, had := b.want[k]; had && b.equal(old, v) {
		return
	}
	b.want[k] = v
	if !b.begun {
		return
	}
	if b.at[k] == "" {
		b.place(k)
	}
	b.due[b.at[k]] = true
	b.stir(k)
}

// Drop tells that an endpoint is gone.
func (b *Book[V]) Drop(k Key) {
	if _, had := b.want[k]; !had {
		return
	}
	delete(b.want, k)
	if s := b.at[k]; s != "" {
		b.due[s] = true
		b.assign(k, "")
	}
	b.stir(k)
}

func (b *Book[V]) has(k Key) bool { _, ok := b.want[k]; return ok }

// Stored tells what a slice is that is stored; nil: there is none of the name.
func (b *Book[V]) Stored(name string, s *Slice[V]) {
	if old := b.stored[name]; old != nil {
		for n := range old.Entries {
			b.clear(Key{old.Namespace, n}, name)
		}
	}
	delete(b.stored, name)
	if s != nil {
		b.stored[name] = s
		if b.begun {
			b.adopt(name, s.Namespace)
		}
		for n := range s.Entries {
			k := Key{s.Namespace, n}
			if b.at[k] != name {
				b.mark(k, name)
			} else {
				b.stir(k)
			}
		}
	}
	b.due[name] = true
}

// adopt makes a slice one of the namespace that it is stored with. Where somebody else has changed that, what was to be in it gets another
// place: the slice cannot be written back before all that it has now is elsewhere.
func (b *Book[V]) adopt(name, namespace string) {
	p := b.parts[name]
	if p != nil && p.namespace == namespace {
		return
	}
	var homeless []Key
	if p != nil {
		for _, n := range slices.Sorted(maps.Keys(p.names)) {
			k := Key{p.namespace, n}
			b.assign(k, "")
			homeless = append(homeless, k)
		}
		b.close(name)
	}
	b.open(name, namespace)
	for _, k := range homeless {
		b.place(k)
		b.due[b.at[k]] = true
	}
}

// Begin gives every endpoint its slice: that which has it, where there is room. From here on Due tells of changes.
func (b *Book[V]) Begin() {
	if b.begun {
		return
	}
	b.begun = true
	// The fuller of two that have an endpoint keeps it.
	names := slices.SortedFunc(maps.Keys(b.stored), func(x, y string) int {
		return cmp.Or(cmp.Compare(len(b.stored[y].Entries), len(b.stored[x].Entries)), cmp.Compare(x, y))
	})
	for _, name := range names {
		s := b.stored[name]
		p := b.open(name, s.Namespace)
		for _, n := range slices.Sorted(maps.Keys(s.Entries)) {
			k := Key{s.Namespace, n}
			if b.has(k) && b.at[k] == "" && len(p.names) < b.most {
				b.assign(k, name)
			}
		}
	}
	all := slices.SortedFunc(maps.Keys(b.want), func(x, y Key) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name))
	})
	for _, k := range all {
		if b.at[k] == "" {
			b.place(k)
		}
	}
	for name := range b.parts {
		b.due[name] = true
	}
}

// Unknown are the endpoints that stored slices have and of which Put has not told.
func (b *Book[V]) Unknown() map[Key]bool {
	out := map[Key]bool{}
	for _, s := range b.stored {
		for n := range s.Entries {
			if k := (Key{s.Namespace, n}); !b.has(k) {
				out[k] = true
			}
		}
	}
	return out
}

// Due are the slices that may have to be written since it was last asked, in order. Nothing is due before Begin.
func (b *Book[V]) Due() []string {
	if !b.begun || len(b.due) == 0 {
		return nil
	}
	out := slices.Sorted(maps.Keys(b.due))
	clear(b.due)
	return out
}

// Order says what a slice is to be: nil that there is to be none. change is false when it is so already.
func (b *Book[V]) Order(name string) (want *Slice[V], change bool) {
	p, now := b.parts[name], b.stored[name]
	if p == nil {
		return nil, false
	}
	want = &Slice[V]{Namespace: p.namespace, Entries: make(map[string]V, len(p.names))}
	for n := range p.names {
		want.Entries[n] = b.want[Key{p.namespace, n}]
	}
	if now != nil {
		for n := range now.Entries { // what has moved stays until it is where it is to be
			k := Key{p.namespace, n}
			if v, there := b.want[k]; there && !p.names[n] && !b.arrived(k, v) {
				want.Entries[n] = v
			}
		}
	}
	if len(want.Entries) == 0 {
		if now == nil {
			b.close(name)
		}
		return nil, now != nil
	}
	same := now != nil && !now.Twice && maps.EqualFunc(now.Entries, want.Entries, b.equal)
	return want, !same
}

// arrived says whether an endpoint is stored, as it is, in the slice in which it is to be.
func (b *Book[V]) arrived(k Key, v V) bool {
	s := b.stored[b.at[k]]
	if s == nil {
		return false
	}
	there, ok := s.Entries[k.Name]
	return ok && b.equal(there, v)
}

// place gives an endpoint a slice: one that has it still, or else the fullest one with room, or else a new one.
func (b *Book[V]) place(k Key) {
	best, full := "", -1
	for name := range b.homes[k.Namespace] {
		n := len(b.parts[name].names)
		if n >= b.most {
			continue
		}
		if b.extra[k][name] {
			n += b.most
		}
		if n > full || n == full && name < best {
			best, full = name, n
		}
	}
	if best == "" {
		for best == "" || b.parts[best] != nil {
			best = b.fresh()
		}
		b.open(best, k.Namespace)
	}
	b.assign(k, best)
}

func (b *Book[V]) open(name, namespace string) *part {
	p := &part{namespace: namespace, names: map[string]bool{}}
	b.parts[name] = p
	if b.homes[namespace] == nil {
		b.homes[namespace] = map[string]bool{}
	}
	b.homes[namespace][name] = true
	return p
}

// close forgets a slice that is empty and not stored.
func (b *Book[V]) close(name string) {
	namespace := b.parts[name].namespace
	delete(b.parts, name)
	delete(b.homes[namespace], name)
	if len(b.homes[namespace]) == 0 {
		delete(b.homes, namespace)
	}
}

// assign makes a slice the one in which an endpoint is to be; "": none.
func (b *Book[V]) assign(k Key, name string) {
	if old := b.at[k]; old != "" {
		delete(b.parts[old].names, k.Name)
		if s := b.stored[old]; s != nil && s.Namespace == k.Namespace {
			if _, there := s.Entries[k.Name]; there {
				b.mark(k, old)
			}
		}
	}
	if name == "" {
		delete(b.at, k)
		return
	}
	b.at[k] = name
	b.parts[name].names[k.Name] = true
	b.clear(k, name)
}

func (b *Book[V]) mark(k Key, name string) {
	if b.extra[k] == nil {
		b.extra[k] = map[string]bool{}
	}
	b.extra[k][name] = true
}

func (b *Book[V]) clear(k Key, name string) {
	delete(b.extra[k], name)
	if len(b.extra[k]) == 0 {
		delete(b.extra, k)
	}
}

// stir makes the slices due that have an endpoint without being its.
func (b *Book[V]) stir(k Key) {
	for name := range b.extra[k] {
		b.due[name] = true
	}
}
