package option

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	ciliumv2alpha1 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2alpha1"
)

// PodPools are the pools that the operator makes where there are none of the name. The option is one for each, after spaces or line
// breaks: name=ipv4-cidrs:10.0.0.0/8,172.16.0.0/12;ipv4-mask-size:24;ipv6-cidrs:fd00::/104;ipv6-mask-size:120
func (o *Options) PodPools() (map[string]ciliumv2alpha1.PodIPPoolSpec, error) {
	out := map[string]ciliumv2alpha1.PodIPPoolSpec{}
	// A comma parts pools as well as the prefixes of one, so what begins a pool is known by its equals sign.
	var texts []string
	for part := range strings.FieldsFuncSeq(o.AutoPools, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' }) {
		if len(texts) == 0 || strings.Contains(part, "=") {
			texts = append(texts, part)
		} else {
			texts[len(texts)-1] += "," + part
		}
	}
	for _, text := range texts {
		name, spec, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("option auto-create-cilium-pod-ip-pools: %q: want name=ipv4-cidrs:RANGES;ipv4-mask-size:BITS", text)
		}
		pool, err := podPool(spec)
		if err != nil {
			return nil, fmt.Errorf("option auto-create-cilium-pod-ip-pools: pool %s: %w", name, err)
		}
		out[name] = pool
	}
	return out, nil
}

func podPool(text string) (out ciliumv2alpha1.PodIPPoolSpec, err error) {
	var cidrs [2][]ciliumv2.CIDR
	var bits [2]int32
	for part := range strings.SplitSeq(text, ";") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), ":")
		v := 0
		if strings.HasPrefix(key, "ipv6") {
			v = 1
		}
		switch key {
		case "":
		case "ipv4-cidrs", "ipv6-cidrs":
			for c := range strings.SplitSeq(value, ",") {
				p, err := netip.ParsePrefix(c)
				if err != nil || p.Addr().Is6() != (v == 1) || p != p.Masked() {
					return out, fmt.Errorf("%s: %q is no such prefix", key, c)
				}
				cidrs[v] = append(cidrs[v], ciliumv2.CIDR(p.String()))
			}
		case "ipv4-mask-size", "ipv6-mask-size":
			n, err := strconv.ParseUint(value, 10, 8)
			if err != nil {
				return out, fmt.Errorf("%s: %q is no prefix length", key, value)
			}
			bits[v] = int32(n)
		default:
			return out, fmt.Errorf("%q: want ipv4-cidrs, ipv4-mask-size, ipv6-cidrs or ipv6-mask-size", key)
		}
	}
	for v, version := range []string{"ipv4", "ipv6"} {
		if (cidrs[v] == nil) != (bits[v] == 0) {
			return out, fmt.Errorf("%s-cidrs and %s-mask-size go together", version, version)
		}
	}
	if cidrs[0] != nil {
		out.IPv4 = &ciliumv2alpha1.IPv4PoolSpec{CIDRs: cidrs[0], MaskSize: bits[0]}
	}
	if cidrs[1] != nil {
		out.IPv6 = &ciliumv2alpha1.IPv6PoolSpec{CIDRs: cidrs[1], MaskSize: bits[1]}
	}
	if out.IPv4 == nil && out.IPv6 == nil {
		return out, fmt.Errorf("%q names no prefixes", text)
	}
	return out, nil
}
