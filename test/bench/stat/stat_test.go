package stat

import (
	"math"
	"slices"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{3, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := Median(c.in); got != c.want {
			t.Errorf("median(%v) = %v", c.in, got)
		}
	}
	if !math.IsNaN(Median(nil)) {
		t.Error("median of nothing")
	}
}

func TestSpread(t *testing.T) {
	var v []time.Duration
	for i := range 1000 {
		v = append(v, time.Duration(999-i))
	}
	if got, want := SpreadOf(v), (Spread{N: 1000, P50: 500, P99: 990, Max: 999}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := SpreadOf(nil); got != (Spread{}) {
		t.Errorf("of nothing: %+v", got)
	}
}

// Too few good rounds are made up by the calmest others, and never by a worse one than is there.
func TestCalmest(t *testing.T) {
	self := func(x float64) float64 { return x }
	kept, q := Calmest([]float64{0.5, 0.01, 0.2, 0.02}, self, 0.03, 3)
	if !slices.Equal(kept, []float64{0.01, 0.02, 0.2}) || q != (Quality{Limit: 0.03, Good: 2, Kept: 3, Thrown: 1, Worst: 0.2}) {
		t.Errorf("%v %+v", kept, q)
	}
	kept, q = Calmest([]float64{0.01, 0.01, 0.02, 0.03}, self, 0.03, 2)
	if len(kept) != 4 || q.Good != 4 || q.Thrown != 0 {
		t.Errorf("good rounds were thrown away: %v %+v", kept, q)
	}
	if kept, q = Calmest(nil, self, 0.03, 2); len(kept) != 0 || q.Kept != 0 {
		t.Errorf("of nothing: %v %+v", kept, q)
	}
}
