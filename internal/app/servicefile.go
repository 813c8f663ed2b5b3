package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/source/kvstore"
	"github.com/hypha-net/hypha/internal/source/state"
	"github.com/hypha-net/hypha/internal/table"
)

// fileServices tells the cluster the services of this node's file: what is in the file is stored under this node's name, and what
// was stored so and is in the file no more is removed. A frontend that somebody else has stays theirs, until they give it up.
type fileServices struct {
	log    *slog.Logger
	owner  string
	store  *kvstore.Services
	judge  func(*model.Service) error
	listed *table.Table[model.Frontend, model.Service] // the file's; without a file complete and empty

	mu       sync.Mutex
	problems map[model.Frontend]error
}

// filePace is the shortest time between two comparisons with the store.
const filePace = time.Second

// Run follows the file and the store until ctx ends.
func (f *fileServices) Run(ctx context.Context) error {
	for {
		listed, stored := f.listed.Snapshot(), f.store.Table().Snapshot()
		var again <-chan time.Time
		if listed.Complete() && stored.Complete() {
			if err := f.sync(ctx, listed, stored); err != nil {
				f.log.Error("services of the file not stored yet", "err", err)
				again = time.After(5 * filePace)
			}
		}
		storeChanged := stored.Changed()
		if listed.Len() == 0 && listed.Complete() && stored.Complete() && again == nil {
			storeChanged = nil // nothing of the store can matter
		}
		select {
		case <-ctx.Done():
			return nil
		case <-listed.Changed():
			continue
		case <-storeChanged:
		case <-again:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-listed.Changed():
		case <-time.After(filePace): // others' changes come together
		}
	}
}

// sync stores what differs. An error means that it is to be tried again.
func (f *fileServices) sync(ctx context.Context, listed table.Snapshot[model.Frontend, model.Service], stored table.Snapshot[model.ServiceID, state.Service]) error {
	problems := map[model.Frontend]error{}
	at := make(map[model.Frontend]state.Service, listed.Len())
	var gone []model.ServiceID
	for id, v := range stored.All() {
		want, ok := listed.Get(v.Frontend)
		if ok {
			at[v.Frontend] = v
		}
		if v.Owner == f.owner && (!ok || want.ID != 0 && want.ID != id) {
			gone = append(gone, id)
			delete(at, v.Frontend)
		}
	}
	var puts []state.Service
	for fe, want := range listed.All() {
		have, ok := at[fe]
		if ok && want.ID == 0 {
			want.ID = have.ID
		}
		switch same := ok && want.Equal(&have.Service); {
		case same:
		case ok && have.Owner != f.owner:
			problems[fe] = fmt.Errorf("%s: service %d has this frontend already, otherwise%s", fe, have.ID, from(&have))
		default:
			if err := f.judge(&want); err != nil {
				problems[fe] = fmt.Errorf("%s: %w", fe, err)
				continue
			}
			puts = append(puts, state.Service{Service: want, Owner: f.owner})
		}
	}
	var retry error
	if _, err := f.store.Delete(ctx, f.owner, gone...); err != nil {
		retry = err
	}
	for i, err := range f.store.PutAll(ctx, puts) {
		switch {
		case err == nil:
		case errors.Is(err, kvstore.ErrTaken) || errors.Is(err, kvstore.ErrNotOurs):
			problems[puts[i].Frontend] = fmt.Errorf("%s: %w", puts[i].Frontend, err)
		default:
			problems[puts[i].Frontend] = fmt.Errorf("%s: %w", puts[i].Frontend, err)
			retry = err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for fe, err := range problems {
		if old := f.problems[fe]; old == nil || old.Error() != err.Error() {
			f.log.Warn("service of the file not stored", "frontend", fe.String(), "err", err)
		}
	}
	f.problems = problems
	return retry
}

// from says where a service comes from.
func from(v *state.Service) string {
	if n := v.FileNode(); n != "" {
		return " (from the services file of node " + n + ")"
	}
	return ""
}

// Problems are the services of the file that are not stored as it has them.
func (f *fileServices) Problems() []error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.SortedFunc(maps.Values(f.problems), func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
}
