// Package stat says what many measurements come to.
package stat

import (
	"math"
	"slices"
	"time"
)

// Median of the values, NaN of none.
func Median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// MedianOf is the median of one property of the samples.
func MedianOf[T any](samples []T, of func(T) float64) float64 {
	v := make([]float64, len(samples))
	for i, s := range samples {
		v[i] = of(s)
	}
	return Median(v)
}

// Quantile is the value that a part q of the sorted values, of which there is one at least, does not exceed.
func Quantile[T any](sorted []T, q float64) T {
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// Spread is p50, p99 and the greatest of durations.
type Spread struct {
	N             int
	P50, P99, Max time.Duration
}

// SpreadOf is the zero Spread for no durations.
func SpreadOf(v []time.Duration) Spread {
	if len(v) == 0 {
		return Spread{}
	}
	s := slices.Sorted(slices.Values(v))
	return Spread{N: len(s), P50: Quantile(s, 0.5), P99: Quantile(s, 0.99), Max: s[len(s)-1]}
}
