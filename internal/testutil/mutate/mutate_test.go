package mutate

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"
)

func TestText(t *testing.T) {
	corpus := [][]byte{[]byte(`{"a":[1,2,3]}`), []byte("x: y\n"), {}}
	a, b := rand.New(rand.NewPCG(1, 2)), rand.New(rand.NewPCG(1, 2))
	seen := map[string]bool{}
	c := Each(t, 2000, time.Minute, func() []byte { return Text(a, corpus) }, func(in []byte) {
		if other := Text(b, corpus); !bytes.Equal(in, other) {
			t.Errorf("%q and %q of the same seed", in, other)
		}
		if len(in) > most+1024 {
			t.Errorf("%d bytes", len(in))
		}
		seen[string(in)] = true
	})
	if c.Tried != 2000 || len(seen) < 1000 {
		t.Errorf("%d tried, %d different", c.Tried, len(seen))
	}
	if string(corpus[0]) != `{"a":[1,2,3]}` {
		t.Errorf("the corpus changed: %q", corpus[0])
	}
}
