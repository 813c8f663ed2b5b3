package cli

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
)

func TestNearest(t *testing.T) {
	list := []string{"status", "endpoint", "identity", "policy", "completion"}
	for word, want := range map[string]string{
		"statsu": "status", "stat": "status", "STATUS": "status", "endpiont": "endpoint", "polciy": "policy", "comp": "completion",
		"zzz": "", "": "", "x": "", "kubernetes": "",
	} {
		if got := nearest(word, list); got != want {
			t.Errorf("nearest(%q) = %q, want %q", word, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"kitten", "sitting", 3}, {"abcd", "badc", 2}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestGuessPeer(t *testing.T) {
	for in, want := range map[string]*agentv1.Peer{
		"app1":              {Pod: "app1"},
		"prod/app1":         {Pod: "prod/app1"},
		"pod:prod/app1":     {Pod: "prod/app1"},
		"10.0.0.1":          {Ip: "10.0.0.1"},
		"fd00::1":           {Ip: "fd00::1"},
		"ip:fd00::1":        {Ip: "fd00::1"},
		"id=app1":           {Labels: []string{"id=app1"}},
		"k8s:id=app1,any:x": {Labels: []string{"k8s:id=app1", "any:x"}},
		"reserved:world":    {Labels: []string{"reserved:world"}},
		"identity:300":      {Identity: 300},
		"identity:world":    {Identity: 2},
		"endpoint:12":       {Endpoint: 12},
	} {
		got, err := guessPeer(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
		} else if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
			t.Errorf("%s: %s", in, d)
		}
	}
	for _, in := range []string{"identity:", "identity:x", "endpoint:0", "endpoint:70000", "pod:", "ip:app1"} {
		if p, err := guessPeer(in); err == nil || !isUsage(err) {
			t.Errorf("%s: %v, %v", in, p, err)
		}
	}
}

func TestParsePort(t *testing.T) {
	for _, c := range []struct {
		in, proto string
		want      port
		text      string
	}{
		{"80", "", port{number: 80, proto: "TCP"}, "80/TCP"},
		{"53", "UDP", port{number: 53, proto: "UDP"}, "53/UDP"},
		{"53/udp", "tcp", port{number: 53, proto: "UDP"}, "53/UDP"},
		{"sctp/38412", "", port{number: 38412, proto: "SCTP"}, "38412/SCTP"},
		{"http", "", port{name: "http", proto: "TCP"}, "http/TCP"},
		{"dns/udp", "", port{name: "dns", proto: "UDP"}, "dns/UDP"},
		{"8/icmp", "", port{number: 8, proto: "ICMP"}, "ICMP type 8"},
		{"icmp", "", port{number: 8, proto: "ICMP"}, "ICMP type 8"},
		{"icmpv6", "", port{number: 128, proto: "ICMPv6"}, "ICMPv6 type 128"},
		{"0", "", port{proto: "TCP"}, "0/TCP"},
	} {
		got, err := parsePort(c.in, c.proto)
		if err != nil || got != c.want || got.String() != c.text {
			t.Errorf("%s %s: %+v %q, %v", c.in, c.proto, got, got, err)
		}
	}
	for _, in := range []string{"", "65536", "-1", "80/", "/tcp", "80/quic", "tcp", "256/icmp", "echo/icmp", "80/tcp/udp", "80x", "any/80"} {
		if p, err := parsePort(in, ""); err == nil || !isUsage(err) {
			t.Errorf("%q: %+v, %v", in, p, err)
		}
	}
}

func TestOption(t *testing.T) {
	for _, s := range []string{"PolicyAuditMode", "policy-audit-mode", "POLICY_AUDIT_MODE"} {
		if option(s) != "policyauditmode" {
			t.Errorf("%s: %s", s, option(s))
		}
	}
	if option("PolicyEnforcement") != option("enable-policy") {
		t.Error("PolicyEnforcement is not enable-policy")
	}
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		state string
		rev   uint64
		want  health
	}{
		{"ready", 3, health{Overall: "OK", Datapath: "OK", Policy: "OK", Connected: true}},
		{"ready", 2, health{Overall: "Pending", Datapath: "OK", Policy: "Pending (revision 2 of 3)", Connected: true}},
		{"regenerating", 3, health{Overall: "Pending", Datapath: "Pending", Policy: "OK", Connected: true}},
		{"disconnected", 0, health{Overall: "Disabled", Datapath: "Disabled", Policy: "OK"}},
		{"on fire", 3, health{Overall: "Failure", Datapath: "Failure", Policy: "OK", Connected: true}},
	} {
		if d := cmp.Diff(c.want, judge(&agentv1.Endpoint{State: c.state, PolicyRevision: c.rev}, 3)); d != "" {
			t.Errorf("%s: %s", c.state, d)
		}
	}
}

func TestText(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m1s", 90 * time.Minute: "1h30m", 49 * time.Hour: "2d1h",
	} {
		if got := age(d); got != want {
			t.Errorf("age(%s) = %s, want %s", d, got, want)
		}
	}
	if a, b, c := count(1, "identity"), count(2, "identity"), count(0, "node"); a != "1 identity" || b != "2 identities" || c != "0 nodes" {
		t.Error(a, b, c)
	}
	if camel("POLICY-SET") != "policySet" || camel("MASQUERADE-IPV4") != "masqueradeIpv4" || camel("a_b c") != "aBC" {
		t.Error(camel("POLICY-SET"), camel("MASQUERADE-IPV4"), camel("a_b c"))
	}
}

func TestRedact(t *testing.T) {
	opts := []*agentv1.ConfigOption{
		{Name: "etcd-password", Value: "x", Default: ""}, {Name: "etcd-endpoints", Value: "https://u:p@h:1,https://h:2"},
		{Name: "etcd-key-file", Value: "/etc/k"},
	}
	redact(opts)
	want := []*agentv1.ConfigOption{
		{Name: "etcd-password", Value: hidden}, {Name: "etcd-endpoints", Value: "https://hidden@h:1,https://h:2"}, {Name: "etcd-key-file", Value: "/etc/k"},
	}
	if d := cmp.Diff(want, opts, protocmp.Transform()); d != "" {
		t.Error(d)
	}
}
