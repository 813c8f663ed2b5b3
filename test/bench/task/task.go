// Package task lets what is made for tests serve programs too: the test worlds of the datapath, in the benchmarks.
package task

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hypha-net/hypha/internal/netns"
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
func (t *task) Skipf(f string, a ...any)  { t.Fatalf(f, a...) }
func (t *task) Context() context.Context  { return context.Background() }

// TempDir implements testing.TB.
func (t *task) TempDir() string {
	name, err := netns.TempName("task") // names its owner: what a killed run leaves goes with the next one
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(os.TempDir(), name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

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
