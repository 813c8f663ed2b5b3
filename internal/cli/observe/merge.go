package observe

import (
	"container/heap"
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"
)

// Bounds of a followed merge: how long an event waits for older ones of other servers, and how many wait.
const (
	mergeDelay = 200 * time.Millisecond
	mergeMax   = 4096
)

// A server's events come a little out of order, as its CPUs are read one beside the other. So many of a stream that ends wait
// for older ones.
const mergeWindow = 256

// merge reads one stream of each server and emits what comes in the order of time.
type merge[T any] struct {
	servers []*server
	open    func(context.Context, *server) (*connect.ServerStreamForClient[T], error)
	time    func(*T) time.Time
	counts  func(*T) bool // is it one of the number asked for, not a remark
	emit    func(*T) error
	warn    func(error) // a server that could not be asked, while others can
	number  uint64      // 0 = no limit
	first   bool
	follow  bool
}

// item is a message, or the end of its server's stream.
type item[T any] struct {
	msg  *T
	err  error
	end  bool
	from *server
	at   time.Time // of the event
	in   time.Time // when it came here
}

// run returns an error if no server could be asked, or if one that answered broke off.
func (m *merge[T]) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	chans := make([]chan item[T], len(m.servers))
	for i, s := range m.servers {
		c := make(chan item[T], 64)
		chans[i] = c
		go m.read(ctx, s, c)
	}
	var err error
	if m.follow && len(chans) > 1 {
		err = m.live(ctx, chans)
	} else {
		err = m.sorted(ctx, chans)
	}
	return err
}

// read passes on one stream. It ends with the stream or with ctx.
func (m *merge[T]) read(ctx context.Context, s *server, out chan<- item[T]) {
	defer close(out)
	put := func(i item[T]) bool {
		i.from, i.in = s, time.Now()
		select {
		case out <- i:
			return true
		case <-ctx.Done():
			return false
		}
	}
	st, err := m.open(ctx, s)
	if err != nil {
		put(item[T]{end: true, err: err})
		return
	}
	defer st.Close()
	for st.Receive() {
		if !put(item[T]{msg: st.Msg(), at: m.time(st.Msg())}) {
			return
		}
	}
	put(item[T]{end: true, err: st.Err()})
}

// endings collects how the streams ended.
type endings struct {
	asked int
	hard  error   // what a server that is there said, or one that the user named
	soft  []error // sockets found by looking around that nobody serves
}

func (v *endings) add(s *server, err error, got bool) {
	v.asked++
	switch {
	case err == nil:
	case s.found && !got && unreachable(err):
		v.soft = append(v.soft, s.fail(err))
	default:
		v.hard = errors.Join(v.hard, s.fail(err))
	}
}

// result is the error of the whole: leftovers do not matter as long as somebody answered.
func (v *endings) result(ctx context.Context, warn func(error)) error {
	switch {
	case ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded):
		return ctx.Err()
	case v.hard != nil:
		return v.hard
	case len(v.soft) == v.asked:
		return errors.Join(v.soft...)
	}
	for _, err := range v.soft {
		warn(err)
	}
	return nil
}

// sorted merges streams that end, each of them nearly in order. One that is followed is passed on as it comes.
func (m *merge[T]) sorted(ctx context.Context, chans []chan item[T]) error {
	heads := make([]*item[T], len(chans))
	got := make([]bool, len(chans))
	var v endings
	next := func(i int) {
		heads[i] = nil
		it, ok := <-chans[i]
		if ok && it.end {
			v.add(it.from, it.err, got[i])
			return
		}
		if ok {
			got[i], heads[i] = true, &it
		}
	}
	for i := range chans {
		next(i)
	}
	out := newTail(m)
	var q queue[T]
	window := mergeWindow
	if m.follow {
		window = 0
	}
	for {
		best := -1
		for i, h := range heads {
			if h != nil && (best < 0 || h.at.Before(heads[best].at)) {
				best = i
			}
		}
		if best < 0 {
			break
		}
		heap.Push(&q, *heads[best])
		if len(q) > window {
			done, err := out.add(heap.Pop(&q).(item[T]).msg)
			if done || err != nil {
				return err
			}
		}
		next(best)
	}
	for len(q) > 0 {
		done, err := out.add(heap.Pop(&q).(item[T]).msg)
		if done || err != nil {
			return err
		}
	}
	if err := out.flush(); err != nil {
		return err
	}
	return v.result(ctx, m.warn)
}

// tail limits the number of what is emitted: the first ones at once, the last ones when all has been seen.
type tail[T any] struct {
	m    *merge[T]
	kept []*T
	n    uint64
}

func newTail[T any](m *merge[T]) *tail[T] { return &tail[T]{m: m} }

func (t *tail[T]) add(msg *T) (done bool, err error) {
	counted := t.m.counts(msg)
	if counted {
		t.n++
	}
	if t.m.number == 0 || t.m.first || t.m.follow || len(t.m.servers) == 1 {
		err = t.m.emit(msg)
		return t.m.first && t.m.number > 0 && t.n >= t.m.number, err
	}
	t.kept = append(t.kept, msg)
	for t.n > t.m.number { // drop the oldest, remarks before it included
		if t.m.counts(t.kept[0]) {
			t.n--
		}
		t.kept = t.kept[1:]
	}
	return false, nil
}

func (t *tail[T]) flush() error {
	for _, m := range t.kept {
		if err := t.m.emit(m); err != nil {
			return err
		}
	}
	return nil
}

// live merges streams that do not end: each event waits a moment for older ones of other servers.
func (m *merge[T]) live(ctx context.Context, chans []chan item[T]) error {
	all := make(chan item[T])
	for _, c := range chans {
		go func() {
			for it := range c {
				select {
				case all <- it:
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	var v endings
	got := map[*server]bool{}
	var q queue[T]
	tick := time.NewTicker(mergeDelay / 4)
	defer tick.Stop()
	drain := func(all bool) error {
		for len(q) > 0 && (all || len(q) > mergeMax || time.Since(q[0].in) >= mergeDelay) {
			if err := m.emit(heap.Pop(&q).(item[T]).msg); err != nil {
				return err
			}
		}
		return nil
	}
	for v.asked < len(chans) {
		select {
		case <-ctx.Done():
			return errors.Join(drain(true), ctx.Err())
		case it := <-all:
			if it.end {
				v.add(it.from, it.err, got[it.from])
				if it.err != nil && v.asked < len(chans) { // the others go on
					m.warn(it.from.fail(it.err))
				}
				continue
			}
			got[it.from] = true
			heap.Push(&q, it)
		case <-tick.C:
		}
		if err := drain(false); err != nil {
			return err
		}
	}
	if err := drain(true); err != nil {
		return err
	}
	return v.result(ctx, func(error) {}) // warned already
}

// queue is a heap by the time of the event, of equals the one that came first.
type queue[T any] []item[T]

func (q queue[T]) Len() int { return len(q) }
func (q queue[T]) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].in.Before(q[j].in)
}
func (q queue[T]) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue[T]) Push(x any)   { *q = append(*q, x.(item[T])) }
func (q *queue[T]) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}
