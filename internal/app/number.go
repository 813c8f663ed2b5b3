package app

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"

	"github.com/hypha-net/hypha/internal/control/identity"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/source/file"
)

// numbers are the node-local identities of remote nodes with labels. The kernel goes on judging by a number while no agent runs, so
// over a restart too a number means the same labels: they are written to a file before any row names them. Numbers that the
// kernel knows and the file does not are not given to anybody.
type numbers struct {
	log   *slog.Logger
	path  string
	scope *identity.Scope
	known map[model.IdentityID]model.Labels // of an earlier run, until it is known which nodes there still are
	saved map[model.IdentityID]model.Labels
}

// openNumbers reads what an earlier run has given; kernel are the identities that have a class.
func openNumbers(log *slog.Logger, path string, kernel map[model.Peer]model.ClassID) (*numbers, error) {
	n := &numbers{log: log, path: path, scope: identity.NewScope(model.IdentityScopeRemote), known: map[model.IdentityID]model.Labels{}}
	for p := range kernel {
		n.scope.Skip(p.Identity)
	}
	var damaged *file.DamagedError
	err := file.ReadJSON(path, &n.known)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case errors.As(err, &damaged):
		log.Warn("numbers of nodes' labels are given anew", "err", err)
		clear(n.known)
	case err != nil:
		return nil, err
	}
	for id, labels := range n.known {
		if err := n.scope.Restore(labels, id); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	n.saved = maps.Clone(n.known)
	return n, nil
}

// settle forgets the numbers of an earlier run that no node has any more.
func (n *numbers) settle() {
	for id := range n.known {
		n.scope.Release(id)
	}
	clear(n.known)
}

// save writes down the numbers in use, besides those of an earlier run. Until it has succeeded no row may name a new one.
func (n *numbers) save(used map[model.IdentityID]model.Labels) error {
	used = maps.Clone(used)
	maps.Copy(used, n.known)
	if maps.EqualFunc(used, n.saved, model.Labels.Equal) {
		return nil
	}
	if err := file.WriteJSON(n.path, used, 0o600); err != nil {
		return fmt.Errorf("remember numbers of nodes' labels: %w", err)
	}
	n.saved = used
	return nil
}
