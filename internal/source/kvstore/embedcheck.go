package kvstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/hypha-net/hypha/internal/source/file"
)

// etcd panics over a damaged database, in goroutines of its own, and would take the agent with it at every start. So the
// database is read through beforehand; and should a start still die, a row of them sets the data aside.

const maxStarts = 5

// checkDB reads the whole database in this goroutine. It returns an *unusableError if that cannot be done.
func checkDB(path string) (err error) {
	if _, serr := os.Stat(path); errors.Is(serr, fs.ErrNotExist) {
		return nil
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // a file cut short faults in its mapping
	defer func() {
		if p := recover(); p != nil {
			err = &unusableError{fmt.Errorf("database: %v", p)}
		}
	}()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, ReadOnly: true})
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return err
		}
		return &unusableError{fmt.Errorf("database: %w", err)}
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(_, _ []byte) error { return nil })
		})
	})
}

// starts counts, in a file, attempts to start that have not come to an end.
type starts struct{ path string }

func (s starts) begin() (before int, err error) {
	data, err := os.ReadFile(s.path)
	if err == nil {
		before, _ = strconv.Atoi(strings.TrimSpace(string(data))) // damaged: 0
	} else if !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	return before, file.Write(s.path, []byte(strconv.Itoa(before+1)), 0o600)
}

func (s starts) end() error { return file.Remove(s.path) }

func dbPath(dataDir string) string { return filepath.Join(dataDir, "member", "snap", "db") }
