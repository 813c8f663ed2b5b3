// Package prefilter decides what the node drops before anything else: a list of CIDRs under a revision, changed in steps of
// which each may name the revision that it is meant for.
package prefilter

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/hypha-net/hypha/internal/model"
)

// List is what is denied. It is not changed once it is made.
type List struct {
	Revision uint64         `json:"revision"` // from 1; another one for each other content
	Deny     []netip.Prefix `json:"deny"`     // masked, in order, each once
}

// Empty is the list of a new node.
func Empty() List { return List{Revision: 1} }

// Reasons for which a change is refused, by errors.Is.
var (
	ErrStale  = errors.New("the list has changed meanwhile")
	ErrAbsent = errors.New("not on the list")
)

// UnmarshalJSON reads what a file has and refuses what no List writes, but for order.
func (l *List) UnmarshalJSON(b []byte) error {
	var raw struct {
		Revision uint64   `json:"revision"`
		Deny     []string `json:"deny"`
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	if raw.Revision == 0 {
		return errors.New("it has no revision")
	}
	ps, err := Parse(raw.Deny)
	*l = List{Revision: raw.Revision, Deny: ps}
	return err
}

// Parse reads CIDRs and puts them in order. The error names those that are none.
func Parse(cidrs []string) ([]netip.Prefix, error) {
	ps := make([]netip.Prefix, 0, len(cidrs))
	var bad []string
	for _, s := range cidrs {
		p, err := model.ParseCIDR(s)
		if err != nil {
			bad = append(bad, err.Error())
			continue
		}
		ps = append(ps, p)
	}
	if len(bad) > 0 {
		return nil, errors.New(some(bad))
	}
	return model.SortCIDRs(ps), nil
}

// some are the first of them, and how many more there are.
func some(texts []string) string {
	const shown = 5
	if n := len(texts); n > shown {
		return fmt.Sprintf("%s, and %d more", strings.Join(texts[:shown], ", "), n-shown)
	}
	return strings.Join(texts, ", ")
}

// Add is the list with these prefixes, sorted, and how many of them are new: with none it is the same list. A revision other
// than 0 must be the list's (ErrStale).
func (l List) Add(revision uint64, ps []netip.Prefix) (next List, added int, err error) {
	if err := l.current(revision); err != nil {
		return l, 0, err
	}
	all := model.SortCIDRs(slices.Concat(l.Deny, ps))
	return l.step(all, len(all)-len(l.Deny))
}

// Remove is the list without these prefixes, sorted; all of them must be there (ErrAbsent). A revision other than 0 must be the
// list's (ErrStale).
func (l List) Remove(revision uint64, ps []netip.Prefix) (next List, removed int, err error) {
	if err := l.current(revision); err != nil {
		return l, 0, err
	}
	gone, kept := model.DiffCIDRs(ps, l.Deny)
	if len(gone) > 0 {
		var texts []string
		for _, p := range gone {
			texts = append(texts, p.String())
		}
		return l, 0, fmt.Errorf("%w: %s", ErrAbsent, some(texts))
	}
	return l.step(kept, len(ps))
}

func (l List) current(revision uint64) error {
	if revision == 0 || revision == l.Revision {
		return nil
	}
	return fmt.Errorf("%w: revision %d was given, it is at revision %d", ErrStale, revision, l.Revision)
}

func (l List) step(deny []netip.Prefix, changed int) (List, int, error) {
	if changed == 0 {
		return l, 0, nil
	}
	return List{Revision: l.Revision + 1, Deny: deny}, changed, nil
}
