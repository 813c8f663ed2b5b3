package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

var nodeName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?$`)

var nodeLabel = regexp.MustCompile(`^([a-z0-9]+:)?[a-zA-Z0-9][a-zA-Z0-9._/-]*(=[a-zA-Z0-9._-]*)?$`)

// minLease is the shortest lease: below it an agent on a busy machine would lose what it published.
const minLease = 5 * time.Second

// check refuses values that make no sense, all of them at once.
func (a *Agent) check() error {
	var errs error
	bad := func(option, format string, args ...any) {
		errs = errors.Join(errs, fmt.Errorf("option "+option+": "+format, args...))
	}
	oneOf := func(option, v string, allowed ...string) {
		if !slices.Contains(allowed, v) {
			bad(option, "%q is none of %s", v, strings.Join(allowed, ", "))
		}
	}
	if !nodeName.MatchString(a.NodeName) {
		bad("node-name", "%q: want up to 63 letters, digits, '.', '_' or '-'", a.NodeName)
	}
	if !nodeName.MatchString(a.ClusterName) {
		bad("cluster-name", "%q: want up to 63 letters, digits, '.', '_' or '-'", a.ClusterName)
	}
	if a.StateDir == "" {
		bad("state-dir", "must not be empty")
	}
	if len(a.Paths().FlowSocket()) > 107 {
		bad("state-dir", "%q is too long: a socket below it would pass 107 bytes", a.StateDir)
	}
	if !a.EnableIPv4 && !a.EnableIPv6 {
		bad("enable-ipv4", "one of enable-ipv4 and enable-ipv6 must be on")
	}
	a.checkKubernetes(bad, oneOf)
	oneOf("datapath-mode", a.Datapath, ModeVeth, ModeNetkit)
	oneOf("routing-mode", a.RoutingMode, "tunnel", "native")
	oneOf("tunnel-protocol", a.TunnelProto, "vxlan")
	oneOf("enable-policy", a.EnablePolicy, "default", "always", "never")
	oneOf("allow-localhost", a.AllowLocalhost, "always", "policy")
	oneOf("log-format", a.LogFormat, "text", "json")
	for _, mode := range a.CIDRMatchMode {
		oneOf("policy-cidr-match-mode", mode, CIDRMatchNodes)
	}
	seen := map[bool]bool{}
	for _, s := range a.NodeIP {
		ip, err := netip.ParseAddr(s)
		switch {
		case err != nil:
			bad("node-ip", "%q is no IP address", s)
		case ip.IsLoopback() || ip.IsMulticast() || ip.IsUnspecified() || ip.Zone() != "":
			bad("node-ip", "%s cannot be a node's address", s)
		case seen[ip.Is6()]:
			bad("node-ip", "more than one address of the same IP version: %s", strings.Join(a.NodeIP, ", "))
		}
		seen[ip.Is6()] = true
	}
	a.checkRanges(bad)
	if lo, hi, err := a.MasqRange(); err != nil {
		bad("masquerade-port-range", "%v", err)
	} else if lo < 1024 || hi-lo < 255 {
		bad("masquerade-port-range", "%q: want at least 256 ports above 1023", a.MasqPorts)
	}
	if a.MTU != 0 && (a.MTU < 1280 || a.MTU > 65535) {
		bad("mtu", "%d is not between 1280 and 65535", a.MTU)
	}
	if a.EventRing == 0 || a.EventRing&(a.EventRing-1) != 0 || a.EventRing < 4096 {
		bad("bpf-events-ring-size", "%d is no power of two of at least 4096", a.EventRing)
	}
	if a.MapRatio <= 0 || a.MapRatio > 0.5 {
		bad("bpf-map-dynamic-size-ratio", "%v is not between 0 and 0.5", a.MapRatio)
	}
	if a.HubbleCapacity < 1 || a.HubbleCapacity > 65535 || (a.HubbleCapacity+1)&a.HubbleCapacity != 0 {
		bad("hubble-event-buffer-capacity", "%d is not one less than a power of two, up to 65535", a.HubbleCapacity)
	}
	for _, l := range a.NodeLabels {
		if !nodeLabel.MatchString(l) {
			bad("node-labels", "%q: want key=value, of letters, digits, '.', '_' and '-'", l)
		}
	}
	a.checkServices(bad)
	a.checkTimes(bad)
	if ip, err := netip.ParseAddr(a.PprofAddress); err != nil || !ip.IsLoopback() { // a heap holds secrets
		bad("pprof-address", "%q is not a loopback address", a.PprofAddress)
	}
	a.checkTLS(bad)
	a.checkCNI(bad)
	return errs
}

// checkKubernetes also decides who keeps the cluster's state where that was left open.
func (a *Agent) checkKubernetes(bad func(string, string, ...any), oneOf func(string, string, ...string)) {
	named := a.APIServer != "" || a.Kubeconfig != ""
	if a.IdentityMode == "" {
		a.IdentityMode = ModeKVStore
		if named {
			a.IdentityMode = ModeCRD
		}
	}
	oneOf("identity-allocation-mode", a.IdentityMode, ModeCRD, ModeKVStore)
	oneOf("ipam", a.IPAM, IPAMKubernetes, IPAMClusterPool, IPAMMultiPool)
	a.checkPools(bad)
	if u, err := url.Parse(a.APIServer); a.APIServer != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		bad("k8s-api-server", "%q is no http(s) URL", a.APIServer)
	} else if a.APIServer != "" && u.Scheme == "http" {
		if ip, err := netip.ParseAddr(u.Hostname()); err != nil || !ip.IsLoopback() {
			bad("k8s-api-server", "%q: off the node the API server must be reached by https", a.APIServer)
		}
	}
	switch {
	case a.IdentityMode == ModeKVStore && named:
		bad("identity-allocation-mode", "identities in etcd and everything else in an API server is not supported yet: leave out k8s-api-server and k8s-kubeconfig-path, or use crd")
	case a.IdentityMode == ModeKVStore && a.EndpointSlices:
		bad("enable-cilium-endpoint-slice", "there are no CiliumEndpointSlices in etcd: they go with identity-allocation-mode crd")
	case a.IdentityMode == ModeCRD && (len(a.EtcdEndpoints) > 0 || len(a.EtcdListen) > 0):
		bad("etcd-endpoints", "there is no etcd with identity-allocation-mode crd: the API server keeps the state")
	case a.IdentityMode == ModeCRD && a.ServicesFile != "":
		bad("services-file", "services are the API server's with identity-allocation-mode crd")
	}
}

func (a *Agent) checkCNI(bad func(string, string, ...any)) {
	for option, path := range map[string]string{"write-cni-conf-when-ready": a.CNIConf, "cni-log-file": a.CNILog} {
		if path != "" && !filepath.IsAbs(path) {
			bad(option, "%q is no absolute path", path)
		}
	}
	if ext := filepath.Ext(a.CNIConf); a.CNIConf != "" && ext != ".conflist" {
		bad("write-cni-conf-when-ready", "%q does not end in .conflist: runtimes would not read it", a.CNIConf)
	}
	if a.CNIChaining != "none" {
		bad("cni-chaining-mode", "%s is not supported yet: only none is", a.CNIChaining)
	}
}

func (a *Agent) checkTimes(bad func(string, string, ...any)) {
	if a.LeaseTTL < minLease {
		bad("kvstore-lease-ttl", "%s is shorter than %s", a.LeaseTTL, minLease)
	}
	for option, d := range map[string]time.Duration{"identity-gc-interval": a.IdentityGC, "identity-heartbeat-timeout": a.IdentityGrace} {
		if d <= 0 {
			bad(option, "%s is not positive", d)
		}
	}
	if a.ReportInterval < 0 || a.ReportInterval > 24*time.Hour {
		bad("monitor-aggregation-interval", "%s is not between 0s and 24h", a.ReportInterval)
	}
}

// hostPort splits an address to listen on; its host may be empty.
func hostPort(s string) (host string, ok bool) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return host, err == nil
}

func (a *Agent) checkRanges(bad func(string, string, ...any)) {
	prefix := func(option, s string, v6 bool) (p netip.Prefix) {
		p, err := netip.ParsePrefix(s)
		switch {
		case err != nil:
			bad(option, "%q is no CIDR", s)
		case p.Addr().Is6() != v6 || p.Addr().Is4In6():
			bad(option, "%q is of the wrong IP version", s)
		case p.Masked() != p:
			bad(option, "%q has bits set behind its length; did you mean %s?", s, p.Masked())
		default:
			return p
		}
		return netip.Prefix{}
	}
	mask := func(option string, size, most int, pool netip.Prefix) {
		if pool.IsValid() && (size < pool.Bits() || size > most) {
			bad(option, "%d is not between %d and %d", size, pool.Bits(), most)
		}
	}
	if a.EnableIPv4 && a.IPv4Range == "" {
		mask("ipv4-pool-mask-size", a.IPv4PoolMask, 30, prefix("ipv4-pool", a.IPv4Pool, false))
	}
	if a.EnableIPv6 && a.IPv6Range == "" {
		mask("ipv6-pool-mask-size", a.IPv6PoolMask, 126, prefix("ipv6-pool", a.IPv6Pool, true))
	}
	if a.IPv4Range != "" {
		prefix("ipv4-range", a.IPv4Range, false)
	}
	if a.IPv6Range != "" {
		prefix("ipv6-range", a.IPv6Range, true)
	}
	for _, s := range a.NonMasq {
		if p, err := netip.ParsePrefix(s); err != nil || p.Masked() != p {
			bad("non-masquerade-cidrs", "%q is no CIDR", s)
		}
	}
}

func (a *Agent) checkTLS(bad func(string, string, ...any)) {
	if (a.HubbleCert == "") != (a.HubbleKey == "") {
		bad("hubble-tls-cert-file", "certificate and key go together")
	}
	for option, s := range map[string]string{"hubble-listen-address": a.HubbleListen, "prometheus-serve-addr": a.Prometheus,
		"kube-proxy-replacement-healthz-bind-address": a.HealthzBind} {
		if _, ok := hostPort(s); s != "" && !ok {
			bad(option, "%q is no host:port", s)
		}
	}
	if host, ok := hostPort(a.HubbleListen); a.HubbleNoTLS && ok {
		if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() {
			bad("hubble-disable-tls", "without TLS the flow API serves a loopback address only, not %q", a.HubbleListen)
		}
	}
	if (a.EtcdCertFile == "") != (a.EtcdKeyFile == "") {
		bad("etcd-cert-file", "certificate and key go together")
	}
	if len(a.EtcdEndpoints) > 0 && len(a.EtcdListen) > 0 {
		bad("etcd-listen", "is for the embedded store, and etcd-endpoints names an external one")
	}
	for _, s := range a.EtcdEndpoints {
		u, err := url.Parse(s)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			bad("etcd-endpoints", "%q is no http(s) URL", s)
			continue
		}
		if ip, err := netip.ParseAddr(u.Hostname()); u.Scheme == "http" && (err != nil || !ip.IsLoopback()) {
			bad("etcd-endpoints", "%q: off the node the store must be reached by https", s)
		}
	}
	for _, s := range a.EtcdListen {
		if u, err := url.Parse(s); err != nil || u.Host == "" || u.Scheme != "https" {
			bad("etcd-listen", "%q is no https URL", s)
		}
	}
	if host, ok := hostPort(a.EtcdLocal); !ok {
		bad("etcd-local-address", "%q is no host:port", a.EtcdLocal)
	} else if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() {
		bad("etcd-local-address", "%q is no loopback address; for other nodes there is etcd-listen", a.EtcdLocal)
	}
}

// MasqRange is masquerade-port-range in numbers, inclusive.
func (a *Agent) MasqRange() (lo, hi uint16, err error) {
	l, h, ok := strings.Cut(a.MasqPorts, "-")
	x, err1 := strconv.ParseUint(l, 10, 16)
	y, err2 := strconv.ParseUint(h, 10, 16)
	if !ok || err1 != nil || err2 != nil || x > y {
		return 0, 0, fmt.Errorf("%q: want LOW-HIGH", a.MasqPorts)
	}
	return uint16(x), uint16(y), nil
}
