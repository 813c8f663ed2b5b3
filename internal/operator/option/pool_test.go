package option

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	ciliumv2alpha1 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2alpha1"
)

func TestPodPools(t *testing.T) {
	v4 := func(bits int32, cidrs ...ciliumv2.CIDR) *ciliumv2alpha1.IPv4PoolSpec {
		return &ciliumv2alpha1.IPv4PoolSpec{CIDRs: cidrs, MaskSize: bits}
	}
	for _, c := range []struct {
		text string
		want map[string]ciliumv2alpha1.PodIPPoolSpec
		why  string
	}{
		{"", map[string]ciliumv2alpha1.PodIPPoolSpec{}, ""},
		{"default=ipv4-cidrs:10.0.0.0/16;ipv4-mask-size:24", map[string]ciliumv2alpha1.PodIPPoolSpec{"default": {IPv4: v4(24, "10.0.0.0/16")}}, ""},
		{"a=ipv4-cidrs:10.0.0.0/16,10.9.0.0/16;ipv4-mask-size:24;ipv6-cidrs:fd00::/104;ipv6-mask-size:120,b=ipv4-cidrs:10.8.0.0/16;ipv4-mask-size:27",
			map[string]ciliumv2alpha1.PodIPPoolSpec{"a": {IPv4: v4(24, "10.0.0.0/16", "10.9.0.0/16"),
				IPv6: &ciliumv2alpha1.IPv6PoolSpec{CIDRs: []ciliumv2.CIDR{"fd00::/104"}, MaskSize: 120}}, "b": {IPv4: v4(27, "10.8.0.0/16")}}, ""},
		{"default", nil, "want name="},
		{"a=ipv4-cidrs:10.0.0.0/16", nil, "go together"},
		{"a=ipv4-cidrs:10.0.0.1/16;ipv4-mask-size:24", nil, "no such prefix"},
		{"a=ipv6-cidrs:10.0.0.0/16;ipv6-mask-size:24", nil, "no such prefix"},
		{"a=ipv4-cidr:10.0.0.0/16;ipv4-mask-size:24", nil, "want ipv4-cidrs"},
		{"a=", nil, "names no prefixes"},
	} {
		got, err := (&Options{AutoPools: c.text}).PodPools()
		if (err != nil) != (c.why != "") || err != nil && !strings.Contains(err.Error(), c.why) {
			t.Errorf("%q: %v, want %q", c.text, err, c.why)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%q: %s", c.text, d)
		}
	}
}
