package model

import (
	"fmt"
	"slices"
	"strings"
)

// Zones is a set of names of zones, or of nodes, in order with a comma between two: backends that have one can be compared.
type Zones string

// NewZones makes a set of names.
func NewZones(names ...string) Zones {
	names = slices.Clone(names)
	slices.Sort(names)
	return Zones(strings.Join(slices.DeleteFunc(slices.Compact(names), func(n string) bool { return n == "" }), ","))
}

// List are the names.
func (z Zones) List() []string {
	if z == "" {
		return nil
	}
	return strings.Split(string(z), ",")
}

// Has says whether a zone is in the set.
func (z Zones) Has(name string) bool {
	for n := range strings.SplitSeq(string(z), ",") {
		if n == name && n != "" {
			return true
		}
	}
	return false
}

// Preference is which backends new flows go to while there are such (trafficDistribution).
type Preference uint8

// Preferences of services.
const (
	PreferNone Preference = iota
	PreferClose
	PreferSameZone
	PreferSameNode
)

var preferenceNames = [...]string{"", "PreferClose", "PreferSameZone", "PreferSameNode"}

// String is the preference's name, "" for none.
func (p Preference) String() string {
	if int(p) < len(preferenceNames) {
		return preferenceNames[p]
	}
	return "unknown"
}

// ParsePreference reads a preference by its name, in any case; "" is none.
func ParsePreference(s string) (Preference, error) {
	for i, n := range preferenceNames {
		if strings.EqualFold(s, n) {
			return Preference(i), nil
		}
	}
	return 0, fmt.Errorf("traffic distribution %q: want one of %s", s, strings.Join(preferenceNames[1:], ", "))
}
