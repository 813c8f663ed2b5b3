package app

import (
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/hypha-net/hypha/internal/control/node"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/table"
)

// TestHostLabels: policies that select nodes by their labels select the node that they are on as well, by the labels that it has now.
func TestHostLabels(t *testing.T) {
	label := func(value string) model.Labels {
		return model.NewLabels(model.Label{Source: model.SourceAny, Key: "zone", Value: value})
	}
	self := model.Node{Name: "n1", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
	numbers, err := openNumbers(slog.New(slog.DiscardHandler), filepath.Join(t.TempDir(), "numbers.json"), nil)
	if err != nil {
		t.Fatal(err)
	}
	nodes := table.New[string, model.Node]("nodes", table.String)
	c := newCluster(slog.New(slog.DiscardHandler), self, node.Options{}, numbers, nodes, table.New[uint16, model.Endpoint]("endpoints", table.Uint), nil)
	changes := 0
	for _, step := range []struct {
		zone    string // of this node, "" without
		changed bool
	}{{"", true}, {"a", true}, {"a", false}, {"b", true}, {"", true}} {
		self.Labels = nil
		if step.zone != "" {
			self.Labels = label(step.zone)
		}
		nodes.Set(self.Name, self)
		before := changes
		if err := c.compute(func() { changes++ }); err != nil {
			t.Fatal(err)
		}
		if (before != changes) != step.changed {
			t.Errorf("zone %q: told of a change: %v", step.zone, before != changes)
		}
		var got string
		for _, id := range c.Identities() {
			if _, ok := id.Labels.Get(model.SourceReserved, "host"); id.ID != model.IdentityHost || !ok {
				t.Errorf("identity %v", id)
			}
			got, _ = id.Labels.Get(model.SourceNode, "zone")
		}
		if got != step.zone {
			t.Errorf("zone %q: the host is in %q", step.zone, got)
		}
	}
}
