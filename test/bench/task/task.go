// Package task lets what is made for tests serve programs too: the test worlds of the datapath, in the benchmarks.
package task

import (
	"fmt"
	"slices"
	"testing"
)

// task stands in for a test, so that the datapath's test worlds serve here too. What it lacks of testing.TB they do not use.
type task struct {
	testing.TB
	undo []func()
}

type failure struct{ error }

func (t *task) Helper()                   {}
func (t *task) Cleanup(fn func())         { t.undo = append(t.undo, fn) }
func (t *task) Fatal(args ...any)         { panic(failure{fmt.Errorf("%s", fmt.Sprint(args...))}) }
func (t *task) Fatalf(f string, a ...any) { panic(failure{fmt.Errorf(f, a...)}) }
func (t *task) Error(args ...any)         { t.Fatal(args...) }
func (t *task) Skip(args ...any)          { t.Fatal(args...) }

// Run runs fn with a stand-in for a test; what it registered for the end is done whatever happens.
func Run(fn func(testing.TB) error) (err error) {
	t := &task{}
	defer func() {
		if f, ok := recover().(failure); ok {
			err = f.error
		}
	}()
	defer func() {
		for _, undo := range slices.Backward(t.undo) {
			undo()
		}
	}()
	return fn(t)
}
