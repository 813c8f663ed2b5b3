package policygen

import (
	"flag"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Repeat checks a property with seeds from r until enough says so or the time is over. A failure is minimised and printed with
// its seed by rapid, and ends the test.
func Repeat(t *testing.T, r *rand.Rand, limit time.Duration, enough func() bool, prop func(*rapid.T)) {
	t.Helper()
	f := flag.Lookup("rapid.seed")
	was := f.Value.String()
	defer func() {
		if err := f.Value.Set(was); err != nil {
			t.Error(err)
		}
	}()
	for end := time.Now().Add(limit); !enough() && time.Now().Before(end); {
		if err := f.Value.Set(strconv.FormatUint(r.Uint64()|1, 10)); err != nil { // 0 would mean a random one
			t.Fatal(err)
		}
		rapid.Check(t, prop)
	}
}
