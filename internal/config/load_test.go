package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func none() []string { return nil }

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrecedence(t *testing.T) {
	path := write(t, "node-name: from-file\ncluster-name: from-file\nmtu: 1400\nnode-ip: [192.0.2.1]\nenable-ipv6: false\n")
	env := func() []string {
		return []string{"HYPHA_CLUSTER_NAME=from-env", "HYPHA_DEVICES=eth0,eth1", "HYPHA_UNRELATED=x", "HYPHA_TUNNEL_PORT=8473",
			"HYPHA_KVSTORE_LEASE_TTL=30s"}
	}
	l, err := LoadAgent([]string{"--config", path, "--mtu=1300"}, env)
	if err != nil {
		t.Fatal(err)
	}
	a := l.Agent
	if a.NodeName != "from-file" || a.ClusterName != "from-env" || a.MTU != 1300 || a.TunnelPort != 8473 || a.EnableIPv6 {
		t.Errorf("wrong precedence: %+v", a)
	}
	if strings.Join(a.Devices, " ") != "eth0 eth1" || a.LeaseTTL.Seconds() != 30 || a.Addrs()[0].String() != "192.0.2.1" {
		t.Errorf("wrong types: %+v", a)
	}
	want := map[string]string{"node-name": "file", "cluster-name": "environment", "mtu": "flag", "ipv4-pool": "default"}
	for _, o := range l.Options {
		if w, ok := want[o.Name]; ok && o.Source != w {
			t.Errorf("%s comes from %s, want %s", o.Name, o.Source, w)
		}
	}
}

// TestOptionsOfNode: they go before those of the directory, and not before any others; what the agent was found by stays.
func TestOptionsOfNode(t *testing.T) {
	dir, path := t.TempDir(), filepath.Join(t.TempDir(), "config.yaml")
	for name, v := range map[string]string{"mtu": "1400", "debug": "false", "devices": "eth9"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(v), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, []byte("devices: [eth1]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := LoadAgentFor(map[string]string{"mtu": "1300", "debug": "true", "devices": "eth0", "node-name": "other", "no-such": "x"},
		[]string{"--config-dir=" + dir, "--config=" + path, "--node-name=n1"}, none)
	if err != nil {
		t.Fatal(err)
	}
	if a := &l.Agent; a.MTU != 1300 || !a.Debug || len(a.Devices) != 1 || a.Devices[0] != "eth1" || a.NodeName != "n1" {
		t.Errorf("%+v", a)
	}
	if len(l.Warnings) != 2 || !strings.Contains(l.Warnings[0], "node-name") || !strings.Contains(l.Warnings[1], "no-such") {
		t.Errorf("%q", l.Warnings)
	}
	if _, err := LoadAgentFor(map[string]string{"mtu": "many"}, nil, none); err == nil {
		t.Error("a value that makes no sense")
	}
}

// TestEncapsulationPort: the port is the encapsulation's own unless somebody says.
func TestEncapsulationPort(t *testing.T) {
	for args, want := range map[string]uint16{"": 8472, "--routing-mode=native": 8472, "--routing-mode=native --bpf-lb-dsr-dispatch=geneve": 6081,
		"--routing-mode=native --bpf-lb-dsr-dispatch=geneve --tunnel-port=7777": 7777, "--tunnel-port=7777": 7777} {
		l, err := LoadAgent(strings.Fields(args), none)
		if err != nil {
			t.Fatal(err)
		}
		if got := l.Agent.EncapsulationPort(); got != want {
			t.Errorf("%q: %d, want %d", args, got, want)
		}
	}
}

func TestEveryOptionHasAField(t *testing.T) {
	l, err := LoadAgent(nil, none)
	if err != nil {
		t.Fatal(err)
	}
	if l.Agent.IPv4Pool != "10.0.0.0/8" || l.Agent.EventRing != 1<<20 || !l.Agent.EnableHubble {
		t.Errorf("defaults did not arrive: %+v", l.Agent)
	}
	for _, o := range l.Options {
		if o.Usage == "" {
			t.Errorf("%s has no description", o.Name)
		}
	}
}

func TestRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		file string
		env  []string
		want string
	}{
		"unknown flag":     {args: []string{"--nodename=x"}, want: "unknown flag"},
		"unknown key":      {file: "nodename: x\n", want: `unknown option "nodename"; did you mean "node-name"?`},
		"argument":         {args: []string{"x"}, want: "unexpected argument"},
		"mode":             {args: []string{"--routing-mode=direct"}, want: "none of tunnel, native"},
		"host bits":        {args: []string{"--ipv4-pool=10.1.2.3/8"}, want: "did you mean 10.0.0.0/8?"},
		"version":          {args: []string{"--ipv4-pool=fd00::/8"}, want: "wrong IP version"},
		"mask":             {args: []string{"--ipv4-pool-mask-size=7"}, want: "not between 8 and 30"},
		"no family":        {args: []string{"--enable-ipv4=false", "--enable-ipv6=false"}, want: "must be on"},
		"two addresses":    {args: []string{"--node-ip=192.0.2.1,192.0.2.2"}, want: "more than one address"},
		"plain flow API":   {args: []string{"--hubble-disable-tls"}, want: "loopback address only"},
		"profiles":         {args: []string{"--pprof-address=0.0.0.0"}, want: "not a loopback address"},
		"slices in etcd":   {args: []string{"--enable-cilium-endpoint-slice"}, want: "go with identity-allocation-mode crd"},
		"plain store":      {args: []string{"--etcd-endpoints=http://192.0.2.1:2379"}, want: "by https"},
		"open local store": {args: []string{"--etcd-local-address=0.0.0.0:2379"}, want: "no loopback"},
		"path in name":     {args: []string{"--node-name=../x"}, want: "node-name"},
		"bool in env":      {env: []string{"HYPHA_ENABLE_IPV6=perhaps"}, want: "enable-ipv6"},
		"CIDR match mode":  {args: []string{"--policy-cidr-match-mode=nodes,pods"}, want: "policy-cidr-match-mode"},
		"ports":            {args: []string{"--masquerade-port-range=5-1"}, want: "LOW-HIGH"},
		"flow address":     {args: []string{"--hubble-listen-address=nonsense"}, want: "option hubble-listen-address: \"nonsense\" is no host:port"},
		"metrics address":  {args: []string{"--prometheus-serve-addr=192.0.2.1"}, want: "option prometheus-serve-addr: \"192.0.2.1\" is no host:port"},
		"port of address":  {args: []string{"--etcd-local-address=127.0.0.1:99999"}, want: "option etcd-local-address: \"127.0.0.1:99999\" is no host:port"},
		"node label":       {args: []string{"--node-labels=a b"}, want: "option node-labels"},
		"short lease":      {args: []string{"--kvstore-lease-ttl=1ms"}, want: "option kvstore-lease-ttl: 1ms is shorter than 5s"},
		"bare number":      {file: "kvstore-lease-ttl: 30\n", want: "option kvstore-lease-ttl: 30 has no unit; write 30s"},
		"no interval":      {args: []string{"--identity-gc-interval=0s"}, want: "option identity-gc-interval: 0s is not positive"},
		"other services":   {args: []string{"--kube-proxy-replacement=strict"}, want: `invalid argument "strict" for "--kube-proxy-replacement"`},
		"DSR by Geneve":    {args: []string{"--bpf-lb-dsr-dispatch=geneve"}, want: "option bpf-lb-dsr-dispatch: geneve goes with routing-mode native only: with the overlay set opt"},
		"DSR by IPIP":      {file: "bpf-lb-dsr-dispatch: ipip\n", want: "option bpf-lb-dsr-dispatch: ipip goes with routing-mode native only"},
		"DSR by pigeon":    {args: []string{"--bpf-lb-dsr-dispatch=pigeon"}, want: `"pigeon" is none of opt, geneve, ipip`},
		"no way back":      {args: []string{"--bpf-lb-mode=nat"}, want: "option bpf-lb-mode: \"nat\" is none of snat, dsr, hybrid"},
		"algorithm":        {args: []string{"--bpf-lb-algorithm=best"}, want: "none of random, maglev"},
		"table size":       {args: []string{"--bpf-lb-maglev-table-size=1000"}, want: "1000 is none of the primes 251 509"},
		"seed":             {args: []string{"--bpf-lb-maglev-hash-seed=short"}, want: "want base64 of 12 bytes"},
		"node ports":       {args: []string{"--node-port-range=30000"}, want: "want LOW,HIGH"},
		"port overlap":     {args: []string{"--node-port-range=29000-32767"}, want: "overlaps masquerade-port-range"},
		"few services":     {args: []string{"--bpf-lb-map-max=5"}, want: "not between 1024"},
		"relative place":   {args: []string{"--write-cni-conf-when-ready=net.d/05-cilium.conflist"}, want: "no absolute path"},
		"kind of network":  {args: []string{"--write-cni-conf-when-ready=/etc/cni/net.d/05-cilium.conf"}, want: "does not end in .conflist"},
		"chaining":         {args: []string{"--cni-chaining-mode=aws-cni"}, want: "option cni-chaining-mode: aws-cni is not supported yet"},
		"no directory":     {args: []string{"--config-dir=/nowhere"}, want: "read configuration directory"},
		"broken YAML":      {file: "node-name: [", want: "read configuration file"},
	} {
		t.Run(name, func(t *testing.T) {
			args := tc.args
			if tc.file != "" {
				args = append(args, "--config", write(t, tc.file))
			}
			_, err := LoadAgent(args, func() []string { return tc.env })
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestNodePortRange(t *testing.T) {
	for arg, want := range map[string]string{"": "30000 32767", "--node-port-range=31000,31999": "31000 31999", "--node-port-range=31000-31999": "31000 31999"} {
		l, err := LoadAgent(strings.Fields(arg), none)
		if err != nil {
			t.Fatal(err)
		}
		lo, hi, err := l.Agent.NodePortRange()
		if got := fmt.Sprint(lo, hi); got != want || err != nil || !l.Agent.KubeProxy {
			t.Errorf("%s: %s, %v; want %s", arg, got, err, want)
		}
		if seed, err := l.Agent.MaglevSeed(); err != nil || seed == [12]byte{} {
			t.Error(seed, err)
		}
	}
	path := write(t, "node-port-range: [31000, 31999]\nkube-proxy-replacement: false\n")
	l, err := LoadAgent([]string{"--config", path}, none)
	if err != nil {
		t.Fatal(err)
	}
	if lo, _, err := l.Agent.NodePortRange(); lo != 31000 || err != nil || l.Agent.KubeProxy {
		t.Error(lo, err, l.Agent.KubeProxy)
	}
}

func TestRuntimeValue(t *testing.T) {
	for in, want := range map[[2]string]string{
		{"policy-audit-mode", "true"}:   "policy-audit-mode=true",
		{"PolicyAuditMode", "Enabled"}:  "policy-audit-mode=true",
		{"PolicyEnforcement", "always"}: "enable-policy=always",
		{"enable-policy", "sometimes"}:  "none of default",
		{"node-name", "x"}:              "these can: debug, enable-policy, policy-audit-mode",
		{"debug", "perhaps"}:            "neither true nor false",
	} {
		o, err := RuntimeValue(in[0], in[1])
		got := o.Name + "=" + o.Value
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%v: got %s, want %s", in, got, want)
		}
	}
}
