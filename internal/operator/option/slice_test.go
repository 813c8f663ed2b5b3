package option

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hypha-net/hypha/internal/control/slicing"
)

func TestSliceRates(t *testing.T) {
	for _, c := range []struct {
		text string
		want slicing.Rates
		why  string
	}{
		{`[{"nodes":0,"limit":10,"burst":20},{"nodes":100,"limit":50,"burst":100}]`, slicing.Rates{{Limit: 10, Burst: 20}, {Nodes: 100, Limit: 50, Burst: 100}}, ""},
		{`[{"nodes":5,"limit":0.5,"burst":1}]`, slicing.Rates{{Nodes: 5, Limit: 0.5, Burst: 1}}, ""},
		{`[{"nodes":0,"limit":1000,"burst":2000}]`, slicing.Rates{{Limit: 50, Burst: 100}}, ""},
		{`[]`, nil, "names no limit"},
		{``, nil, "EOF"},
		{`[{"nodes":0,"limit":10}]`, nil, "burst of more than 0"},
		{`[{"nodes":-1,"limit":10,"burst":1}]`, nil, "nodes of 0 or more"},
		{`[{"node":0,"limit":10,"burst":20}]`, nil, "unknown field"},
	} {
		got, err := (&Options{SliceLimits: c.text}).SliceRates()
		if (err != nil) != (c.why != "") || err != nil && !strings.Contains(err.Error(), c.why) {
			t.Errorf("%q: %v, want %q", c.text, err, c.why)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%q: %s", c.text, d)
		}
	}
}
