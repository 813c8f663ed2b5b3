package app

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hypha-net/hypha/internal/model"
)

// A number means the same labels in the next run, whatever comes first then; one that only the kernel remembers is nobody's.
func TestNumbersOutliveTheAgent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "numbers.json")
	labels := func(role string) model.Labels {
		return model.NewLabels(model.Label{Source: model.SourceNode, Key: "role", Value: role})
	}
	kernel := map[model.Peer]model.ClassID{{Identity: 1}: 1, {Identity: model.IdentityScopeRemote | 7}: 3}
	open := func() *numbers {
		t.Helper()
		n, err := openNumbers(discard, path, kernel)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	give := func(n *numbers, role string) model.IdentityID {
		t.Helper()
		id, _, err := n.scope.Acquire(labels(role))
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	n := open()
	evil, good := give(n, "evil"), give(n, "good")
	if evil != model.IdentityScopeRemote|8 || good != evil+1 {
		t.Errorf("first numbers %d and %d: want those behind the kernel's", evil, good)
	}
	if err := n.save(map[model.IdentityID]model.Labels{evil: labels("evil"), good: labels("good")}); err != nil {
		t.Fatal(err)
	}
	n = open()
	if got := give(n, "good"); got != good {
		t.Errorf("good has %d, had %d", got, good)
	}
	n.settle()
	if err := n.save(map[model.IdentityID]model.Labels{good: labels("good")}); err != nil {
		t.Fatal(err)
	}
	n = open()
	if id := give(n, "new"); id == evil || id == good {
		t.Errorf("new labels got %d, which means something else", id)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	kernel[model.Peer{Identity: good}] = 4
	if id := give(open(), "other"); id <= good {
		t.Errorf("with a damaged file, other labels got %d, which the kernel knows", id)
	}
}
