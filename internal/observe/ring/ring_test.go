package ring

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestCapacity(t *testing.T) {
	for _, c := range []int{-1, 0, 2, 4, 4096, 1 << 25} {
		if _, err := New[int](c); err == nil {
			t.Errorf("New(%d): no error", c)
		}
	}
	for _, c := range []int{1, 3, 4095} {
		r, err := New[int](c)
		if err != nil || r.Cap() != c {
			t.Errorf("New(%d) = cap %d, %v", c, r.Cap(), err)
		}
	}
}

// TestAccounting checks, for any order of writes and reads, that a reader gets each value once and in order or is told
// that it is lost, never both.
func TestAccounting(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, err := New[uint64](1<<rapid.IntRange(1, 5).Draw(t, "bits") - 1)
		if err != nil {
			t.Fatal(err)
		}
		rd := r.Reader(0)
		var want, written uint64
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "write") {
				for range rapid.IntRange(1, 20).Draw(t, "burst") {
					r.Write(written)
					written++
				}
			}
			v, lost, ok := rd.Next()
			switch {
			case ok && v != want:
				t.Fatalf("read %d, want %d", v, want)
			case ok:
				want++
			case lost > 0:
				want += lost
				if left := written - want; left != uint64(r.Cap()) {
					t.Fatalf("lost %d, but %d of %d are left", lost, left, r.Cap())
				}
			case want != written:
				t.Fatalf("nothing to read at %d of %d", want, written)
			}
			if rd.Pos() != want || r.Written() != written || r.Len() != int(min(written, uint64(r.Cap()))) {
				t.Fatalf("pos %d want %d, written %d want %d, len %d", rd.Pos(), want, r.Written(), written, r.Len())
			}
		}
	})
}

// TestOverload lets a writer outrun its readers: each must account for every value.
func TestOverload(t *testing.T) {
	const n = 200_000
	r, _ := New[uint64](255)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			rd := r.Reader(0)
			var got, lost uint64
			for got+lost < n {
				v, l, ok := rd.Next()
				switch {
				case ok:
					if v != got+lost {
						t.Errorf("read %d, want %d", v, got+lost)
						return
					}
					got++
				case l > 0:
					lost += l
				default:
					if err := rd.Wait(ctx); err != nil {
						t.Errorf("after %d read, %d lost: %v", got, lost, err)
						return
					}
				}
			}
			if got+lost != n || got == 0 {
				t.Errorf("read %d + lost %d, want %d", got, lost, n)
			}
		})
	}
	for i := range uint64(n) {
		r.Write(i)
	}
	wg.Wait()
}

func TestWaitEnds(t *testing.T) {
	r, _ := New[int](3)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Reader(0).Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait = %v, want canceled", err)
	}
}

func BenchmarkWrite(b *testing.B) {
	r, _ := New[*int](4095)
	v := new(int)
	b.ReportAllocs()
	for b.Loop() {
		r.Write(v)
	}
}
