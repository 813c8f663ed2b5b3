package load

import (
	"math/bits"
	"time"
)

// A histogram of durations up to about a minute, each bucket 1/64 of its power of two wide.
type histogram struct {
	count   uint64
	buckets [36 * 64]uint32
}

const subBits = 6

func (h *histogram) add(d time.Duration) {
	h.count++
	h.buckets[bucket(d)]++
}

func bucket(d time.Duration) int {
	v := uint64(max(d, 0))
	if v < 1<<subBits {
		return int(v)
	}
	exp := bits.Len64(v) - subBits - 1
	i := (exp+1)<<subBits | int(v>>exp)&(1<<subBits-1)
	return min(i, len(histogram{}.buckets)-1)
}

// lower is the least duration of a bucket.
func lower(i int) time.Duration {
	exp, sub := i>>subBits, i&(1<<subBits-1)
	if exp == 0 {
		return time.Duration(sub)
	}
	return time.Duration(uint64(1<<subBits|sub) << (exp - 1))
}

func (h *histogram) merge(o *histogram) {
	h.count += o.count
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
}

// quantile is the duration that this part of all does not exceed, to 1/64.
func (h *histogram) quantile(q float64) time.Duration {
	rank := uint64(float64(h.count) * q)
	var seen uint64
	for i, n := range h.buckets {
		seen += uint64(n)
		if seen > rank {
			return lower(i)
		}
	}
	return 0
}
