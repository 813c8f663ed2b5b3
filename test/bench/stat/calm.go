package stat

import (
	"cmp"
	"fmt"
	"slices"
)

// Quality is how steady the machine was over the rounds of a measurement. Drift is how far a round's base was from itself,
// measured at both its ends, as a part of it.
type Quality struct {
	Limit  float64 // of drift, for a good round
	Good   int     // rounds within the limit
	Kept   int     // rounds that count: the good ones, or more where they were too few
	Thrown int
	Worst  float64 // drift of the kept rounds
}

// Calmest keeps the rounds whose base did not drift. Where those are fewer than wanted, the calmest of the others make up the
// number: a noisy machine has a result too, and it says how noisy.
func Calmest[T any](rounds []T, drift func(T) float64, limit float64, want int) (kept []T, q Quality) {
	q.Limit = limit
	slices.SortStableFunc(rounds, func(a, b T) int { return cmp.Compare(drift(a), drift(b)) })
	for _, x := range rounds {
		if drift(x) <= limit {
			q.Good++
		} else if q.Kept >= want {
			q.Thrown++
			continue
		}
		q.Kept++
		q.Worst = drift(x)
		kept = append(kept, x)
	}
	return kept, q
}

// Text says it for people; base is the name of the arm that was measured twice in each round.
func (q Quality) Text(base string) string {
	thrown := ""
	if q.Thrown > 0 {
		thrown = fmt.Sprintf(" %d more were thrown away.", q.Thrown)
	}
	if q.Kept == q.Good {
		return fmt.Sprintf("%d rounds, in which %s differed from itself by at most %.1f %%.%s", q.Kept, base, 100*q.Worst, thrown)
	}
	return fmt.Sprintf("%d rounds. The machine was noisy: in only %d of them %s differed from itself by less than %.0f %%; the others are the calmest, with up to %.1f %%.%s",
		q.Kept, q.Good, base, 100*q.Limit, 100*q.Worst, thrown)
}
