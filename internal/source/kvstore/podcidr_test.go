package kvstore

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/hypha-net/hypha/internal/control/ipam"
)

// Nodes that come all at once get different ranges, and keep them.
func TestClaimPodCIDRs(t *testing.T) {
	s, config := pair(t)
	ctx := testContext(t)
	choose := ipam.Ranges{Pools: ipam.DefaultPools()}.Choose
	stores := []*Store{s}
	for i := range 4 {
		stores = append(stores, open(t, config(fmt.Sprint("n", i))))
	}
	got := make([][]netip.Prefix, len(stores))
	var wg sync.WaitGroup
	for i, s := range stores {
		wg.Go(func() {
			var err error
			if got[i], err = s.ClaimPodCIDRs(ctx, choose); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var all []netip.Prefix
	for i, ps := range got {
		if len(ps) != 2 {
			t.Fatalf("%v", ps)
		}
		for _, p := range ps {
			for _, q := range all {
				if p.Overlaps(q) {
					t.Errorf("%s overlaps %s", p, q)
				}
			}
			all = append(all, p)
		}
		if again := must[[]netip.Prefix](t)(stores[i].ClaimPodCIDRs(ctx, choose)); !slices.Equal(again, ps) {
			t.Errorf("%v became %v", ps, again)
		}
	}
	if taken := must[map[netip.Prefix]string](t)(s.PodCIDRs(ctx)); len(taken) != len(all) {
		t.Errorf("%v", taken)
	}
	// A range by option: checked against the others, and the pool's piece is given back.
	fixed := ipam.Ranges{Fixed: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}}
	if _, err := stores[1].ClaimPodCIDRs(ctx, fixed.Choose); err == nil {
		t.Error("overlapping range accepted")
	}
	fixed.Fixed[0] = netip.MustParsePrefix("172.16.1.0/24")
	must[[]netip.Prefix](t)(stores[1].ClaimPodCIDRs(ctx, fixed.Choose))
	taken := must[map[netip.Prefix]string](t)(s.PodCIDRs(ctx))
	if taken[fixed.Fixed[0]] != "n0" || len(taken) != len(all)-1 {
		t.Errorf("%v", taken)
	}
	if n, err := s.ReleasePodCIDRs(ctx, "n0"); n != 1 || err != nil {
		t.Error(n, err)
	}

	// Without the store, or after it has lost everything: the same ranges.
	cfg := stores[2].cfg
	want := got[2]
	if err := stores[2].Close(); err != nil {
		t.Fatal(err)
	}
	away := cfg
	away.Endpoints = []string{"http://" + freePort(t)}
	a := open(t, away)
	if again, err := a.ClaimPodCIDRs(ctx, choose); !slices.Equal(again, want) || err != nil {
		t.Errorf("%v, %v; want %v", again, err, want)
	}
	if _, err := a.ClaimPodCIDRs(ctx, fixed.Choose); !errors.Is(err, ErrUnreachable) {
		t.Errorf("%v", err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	must[int64](t)(s.Delete(ctx, podCIDRRoot, true))
	if again := must[[]netip.Prefix](t)(open(t, cfg).ClaimPodCIDRs(ctx, choose)); !slices.Equal(again, want) {
		t.Errorf("%v; want %v", again, want)
	}
}
