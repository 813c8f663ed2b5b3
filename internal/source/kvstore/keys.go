package kvstore

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/hypha-net/hypha/internal/model"
)

// Keys, as docs/architecture.md lists them.
const (
	identityRoot    = "cilium/state/identities/v1/"
	identityMaster  = identityRoot + "id/"
	identityValue   = identityRoot + "value/"
	identityIndex   = "hypha/identity/v1/labels/" // labels -> id: makes labels unique
	identityFreed   = "hypha/identity/v1/freed/"  // id -> labels it had; leased: the number rests
	ipRoot          = "cilium/state/ip/v1/"
	nodeRoot        = "cilium/state/nodes/v1/"
	clusterConfig   = "cilium/cluster-config/"
	heartbeatKey    = "cilium/.heartbeat"
	podCIDRRoot     = "hypha/podcidr/v1/"
	policyRoot      = "hypha/policy/v1/"
	policyRules     = policyRoot + "rules/"
	policyStaged    = policyRoot + "staged/"
	policyRevision  = policyRoot + "revision"
	serviceID       = "hypha/service/v1/id/"
	serviceFrontend = "hypha/service/v1/frontend/" // frontend -> id: makes frontends unique
	serviceFreed    = "hypha/service/v1/freed/"    // id -> frontend it had; leased: the number rests
	gcLock          = "hypha/lock/v1/identity-gc"
)

func masterKey(id model.IdentityID) string {
	return identityMaster + strconv.FormatUint(uint64(id), 10)
}
func freedKey(id model.IdentityID) string { return identityFreed + strconv.FormatUint(uint64(id), 10) }

func parseID(s string) (model.IdentityID, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return model.IdentityID(n), err == nil
}

// valueLabels splits value/<labels>/<node>: labels may hold slashes, node names do not.
func valueLabels(key string) (labels, node string, ok bool) {
	rest, ok := strings.CutPrefix(key, identityValue)
	i := strings.LastIndexByte(rest, '/')
	if !ok || i < 0 {
		return "", "", false
	}
	return rest[:i], rest[i+1:], true
}

// ipSuffix is an address where the prefix is a single one, else the prefix, as the field writes it.
func ipSuffix(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func parseIPSuffix(s string) (netip.Prefix, bool) {
	if a, err := netip.ParseAddr(s); err == nil {
		a = a.Unmap().WithZone("")
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(s)
	return p.Masked(), err == nil
}
