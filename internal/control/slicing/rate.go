package slicing

import (
	"cmp"
	"slices"
)

// Rate is how fast slices are written in clusters of so many nodes and more.
type Rate struct {
	Nodes int     `json:"nodes"`
	Limit float64 `json:"limit"` // per second
	Burst int     `json:"burst"`
}

// Rates are those of clusters of different sizes.
type Rates []Rate

// For is the rate of a cluster of so many nodes: that of the greatest size that it reaches, or else that of the least.
func (r Rates) For(nodes int) (out Rate) {
	for i, x := range slices.SortedFunc(slices.Values(r), func(a, b Rate) int { return cmp.Compare(a.Nodes, b.Nodes) }) {
		if i == 0 || x.Nodes <= nodes {
			out = x
		}
	}
	return out
}
