package filter

import (
	"errors"
	"strings"
)

// globMax is the longest pattern; no name is longer.
const globMax = 1024

// glob compiles a pattern over a whole text, in which "*" stands for any text.
func glob(pattern string) (func(string) bool, error) {
	if len(pattern) > globMax {
		return nil, errors.New("the pattern is longer than any name")
	}
	parts := strings.Split(pattern, "*")
	first, last := parts[0], parts[len(parts)-1]
	if len(parts) == 1 {
		return func(s string) bool { return s == pattern }, nil
	}
	middle := parts[1 : len(parts)-1]
	return func(s string) bool {
		s, ok := strings.CutPrefix(s, first)
		if !ok {
			return false
		}
		// The first place that fits is as good as any: what is left is longest.
		for _, part := range middle {
			if _, s, ok = strings.Cut(s, part); !ok {
				return false
			}
		}
		return strings.HasSuffix(s, last)
	}, nil
}
