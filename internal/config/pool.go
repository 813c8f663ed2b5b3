package config

import (
	"regexp"
	"strconv"
	"strings"
)

// Ways to have a node's pod ranges from Kubernetes (option ipam).
const (
	IPAMKubernetes  = "kubernetes"
	IPAMClusterPool = "cluster-pool"
	IPAMMultiPool   = "multi-pool"
)

var poolName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)

// defaultAhead is how many addresses of the default pool a node has ahead of need.
const defaultAhead = 8

// PoolsAhead says how many addresses of pools a node has ahead of need; checkPools has checked them.
func (a *Agent) PoolsAhead() map[string]int {
	out := map[string]int{}
	for _, s := range a.PreAllocation {
		pool, n, _ := strings.Cut(s, "=")
		out[pool], _ = strconv.Atoi(n)
	}
	if len(out) == 0 {
		out[a.DefaultPool] = defaultAhead
	}
	if out[a.DefaultPool] == 0 {
		out[a.DefaultPool] = 1 // the node's own address
	}
	return out
}

func (a *Agent) checkPools(bad func(string, string, ...any)) {
	if !poolName.MatchString(a.DefaultPool) {
		bad("ipam-default-ip-pool", "%q is no name of a CiliumPodIPPool", a.DefaultPool)
	}
	for _, s := range a.PreAllocation {
		pool, n, _ := strings.Cut(s, "=")
		if _, err := strconv.ParseUint(n, 10, 16); err != nil || !poolName.MatchString(pool) {
			bad("ipam-multi-pool-pre-allocation", "%q: want pool=number", s)
		}
	}
}
