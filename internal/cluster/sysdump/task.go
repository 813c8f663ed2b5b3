package sysdump

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// task is one thing that is gathered.
type task struct {
	what string
	do   func(context.Context) error
}

// failure is a task that failed.
type failure struct {
	what string
	err  error
}

// patience is how long one task may take, but for those that read logs, which take what they take.
const patience = 2 * time.Minute

// runAll does all tasks, several at a time, and returns what failed, in the order of the tasks. Once ctx ends, those that have not begun
// have failed.
func runAll(ctx context.Context, tasks []task, workers int, out io.Writer) []failure {
	errs := make([]error, len(tasks))
	next := make(chan int)
	var wg sync.WaitGroup
	var mu sync.Mutex
	for range max(workers, 1) {
		wg.Go(func() {
			for i := range next {
				mu.Lock()
				fmt.Fprintln(out, "Collecting", tasks[i].what)
				mu.Unlock()
				errs[i] = one(ctx, tasks[i])
			}
		})
	}
	for i := range tasks {
		if ctx.Err() != nil {
			errs[i] = ctx.Err()
			continue
		}
		next <- i
	}
	close(next)
	wg.Wait()
	var failed []failure
	for i, err := range errs {
		if err != nil {
			failed = append(failed, failure{tasks[i].what, err})
		}
	}
	return failed
}

// one does a task. One that panics has failed like any other.
func one(ctx context.Context, t task) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errors.Join(err, fmt.Errorf("panic: %v", r))
		}
	}()
	return t.do(ctx)
}
