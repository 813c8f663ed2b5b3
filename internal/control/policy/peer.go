package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	"github.com/hypha-net/hypha/internal/model"
)

// peers is the L3 part of an entry: who matches any of the terms. A nil *peers is everybody; one without terms is nobody.
type peers struct {
	key   string // canonical: equal keys, equal peers
	terms []term
}

type termKind uint8

const (
	termLabels  termKind = iota
	termNode             // labels, and it is a node
	termCIDR             // prefix without what is cut out
	termCluster          // everything of the local cluster
	termWorld4           // outside, IPv4
	termWorld6           // outside, IPv6
)

type term struct {
	kind   termKind
	reqs   []requirement  // termLabels, termNode
	prefix netip.Prefix   // termCIDR
	except []netip.Prefix // termCIDR: inside prefix, sorted
	block  bool           // termCIDR: it means addresses, whoever lives there, and not the outside alone
}

// String is the written form, as `policy selectors` shows it; equal terms have equal forms.
func (t *term) String() string {
	switch t.kind {
	case termCIDR:
		what := "cidr"
		if t.block {
			what = "block"
		}
		if len(t.except) == 0 {
			return what + " " + t.prefix.String()
		}
		return fmt.Sprintf("%s %s except %v", what, t.prefix, t.except)
	case termCluster:
		return "entity cluster"
	case termWorld4:
		return "entity world-ipv4"
	case termWorld6:
		return "entity world-ipv6"
	}
	parts := make([]string, len(t.reqs))
	for i, r := range t.reqs {
		parts[i] = r.String()
	}
	if t.kind == termNode {
		return "node {" + strings.Join(parts, ", ") + "}"
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// newPeers makes the union; a label term without conditions is everybody (nil).
func newPeers(terms []term) *peers {
	keys := make([]string, 0, len(terms))
	byKey := map[string]term{}
	for _, t := range terms {
		if t.kind == termLabels && len(t.reqs) == 0 {
			return nil
		}
		k := t.String()
		if _, ok := byKey[k]; !ok {
			byKey[k] = t
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	p := &peers{key: strings.Join(keys, " | "), terms: make([]term, 0, len(keys))}
	for _, k := range keys {
		p.terms = append(p.terms, byKey[k])
	}
	return p
}

// with adds requirements to every label term.
func (p *peers) with(rs []requirement) *peers {
	if len(rs) == 0 {
		return p
	}
	if p == nil {
		return newPeers([]term{{reqs: canonical(slices.Clone(rs))}})
	}
	terms := make([]term, len(p.terms))
	for i, t := range p.terms {
		t.reqs = canonical(slices.Concat(t.reqs, rs))
		terms[i] = t
	}
	return newPeers(terms)
}

func (p *peers) matches(id *identity) bool {
	for i := range p.terms {
		if p.terms[i].matches(id) {
			return true
		}
	}
	return false
}

func (t *term) matches(id *identity) bool {
	switch t.kind {
	case termLabels:
		return matchAll(t.reqs, id.labels)
	case termNode:
		return id.node && matchAll(t.reqs, id.labels)
	case termCluster:
		return id.cluster
	case termWorld4:
		return id.world4
	case termWorld6:
		return id.world6
	}
	return t.covers(id)
}

// covers holds for identities of prefixes inside the term's prefix, and for the whole world if it is of length 0. An insider
// of whom it is not known where he lives is in no prefix.
func (t *term) covers(id *identity) bool {
	if id.inside && !t.block && !id.byCIDR {
		return false
	}
	if !id.prefix.IsValid() {
		if t.prefix.Bits() != 0 {
			return false
		}
		return t.prefix.Addr().Is4() && id.world4 || t.prefix.Addr().Is6() && id.world6
	}
	if !within(id.prefix, t.prefix) {
		return false
	}
	for _, x := range t.except {
		if within(id.prefix, x) {
			return false
		}
	}
	return true
}

func within(inner, outer netip.Prefix) bool {
	return inner.Bits() >= outer.Bits() && outer.Contains(inner.Addr())
}

// cidrTerm leaves out exceptions that cut nothing, and answers false when nothing remains.
func cidrTerm(p netip.Prefix, except []netip.Prefix, block bool) (term, bool) {
	t := term{kind: termCIDR, prefix: p, block: block}
	for _, x := range except {
		if within(p, x) {
			return term{}, false
		}
		if within(x, p) {
			t.except = append(t.except, x)
		}
	}
	slices.SortFunc(t.except, model.CompareCIDRs)
	t.except = slices.Compact(t.except)
	return t, true
}

// entityTerms: all is everybody, which the caller handles; none is nobody.
func entityTerms(e v2.Entity) []term {
	is := func(names ...string) []term {
		var out []term
		for _, n := range names {
			out = append(out, term{reqs: []requirement{{source: model.SourceReserved, key: n, op: v2.OpExists}}})
		}
		return out
	}
	switch e {
	case v2.EntityWorld:
		return is("world", "world-ipv4", "world-ipv6")
	case v2.EntityWorldIPv4:
		return []term{{kind: termWorld4}}
	case v2.EntityWorldIPv6:
		return []term{{kind: termWorld6}}
	case v2.EntityCluster:
		return []term{{kind: termCluster}}
	case v2.EntityNone:
		return nil
	}
	return is(string(e)) // host, init, ingress, unmanaged, remote-node, health, kube-apiserver
}
