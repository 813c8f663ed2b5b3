package endpoint_test

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/hypha-net/hypha/internal/datapath/endpoint"
	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/datapath/pintest"
	"github.com/hypha-net/hypha/internal/model"
)

// What is on record about an address holds for who had it: the rows of another start a new epoch, the same rows none.
func TestAddressesThatChangeHands(t *testing.T) {
	m, err := maps.Open(maps.Config{Dir: pintest.Dir(t), CT: 4096, NAT: 4096, Ring: 4096}, maps.Deps{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	target := &endpoint.Target{Maps: m}
	first := model.Endpoint{ID: 5, HostIfIndex: 11, Identity: 1001, PolicySet: 2, MAC: "02:00:00:00:00:01", HostMAC: "02:00:00:00:00:02",
		IPv4: netip.MustParseAddr("10.0.0.5"), IPv6: netip.MustParseAddr("fd00::5")}
	next := first // of the same number, identity and set, as far as the policy engine can see the same endpoint
	next.HostIfIndex, next.MAC = 12, "02:00:00:00:00:03"
	audited, moved, relabelled := next, next, next
	audited.Audit = true
	moved.IPv4 = netip.MustParseAddr("10.0.0.6")
	relabelled.Identity, relabelled.PolicySet = 1002, 3
	for _, c := range []struct {
		name string
		e    model.Endpoint
		bump bool
	}{
		{"new", first, true}, {"again", first, false}, {"another device", next, true}, {"audit", audited, true},
		{"another address", moved, true}, {"other labels", relabelled, true}, {"again", relabelled, false},
	} {
		before, err := m.Epoch()
		if err != nil {
			t.Fatal(err)
		}
		if err := target.UpsertEndpoint(context.Background(), c.e); err != nil {
			t.Fatal(err)
		}
		if after, err := m.Epoch(); err != nil || after != before && !c.bump || after == before && c.bump {
			t.Errorf("%s: epoch %d, was %d: %v", c.name, after, before, err)
		}
	}
	before, err := m.Epoch()
	if err != nil {
		t.Fatal(err)
	}
	if err := target.DeleteEndpoint(context.Background(), relabelled); err != nil {
		t.Fatal(err)
	}
	if after, err := m.Epoch(); err != nil || after == before {
		t.Errorf("deleted: epoch still %d: %v", after, err)
	}
	bare := first
	bare.PolicySet = 0
	if err := target.UpsertEndpoint(context.Background(), bare); err == nil {
		t.Error("a workload without a policy set is one that nothing is asked about")
	}
}
