package servicefile

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hypha-net/hypha/internal/model"
)

const full = `
- name: web
  namespace: shop
  id: 7
  type: LoadBalancer
  frontend: 10.96.0.1:80
  affinity: 3h
  externalTrafficPolicy: Local
  internalTrafficPolicy: Cluster
  healthCheckNodePort: 30001
  sourceRanges: [192.0.2.0/24]
  sourceRangesPolicy: deny
  selection: maglev
  trafficDistribution: PreferClose
  backends:
  - 10.0.0.5:8080
  - {address: "10.0.0.6:8080", state: terminating, weight: 3, node: n2, zone: z, hints: [z, x]}
  - {address: "10.0.0.7:8080", weight: 0}
- frontend: "[fd00:96::1]:53/UDP"
  backends: ["[fd00::5]:53"]
`

func TestParse(t *testing.T) {
	got, err := Parse([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	b := func(a string, port uint16, proto uint8) model.Backend {
		return model.Backend{Addr: netip.MustParseAddr(a), Port: port, Proto: proto}
	}
	second, third := b("10.0.0.6", 8080, 6), b("10.0.0.7", 8080, 6)
	second.State, second.Weight, second.Node, second.Zone, second.Hints = model.BackendTerminating, 3, "n2", "z", "x,z"
	third.State = model.BackendMaintenance
	want := []model.Service{{ID: 7, Name: "web", Namespace: "shop", Type: model.ServiceLoadBalancer,
		Frontend: model.Frontend{Addr: netip.MustParseAddr("10.96.0.1"), Port: 80, Proto: 6}, Affinity: 3 * time.Hour, ExternalLocal: true, HealthPort: 30001,
		Ranges: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, RangesDeny: true, Select: model.SelectMaglev, Prefer: model.PreferClose,
		Backends: []model.Backend{b("10.0.0.5", 8080, 6), second, third}},
		{Frontend: model.Frontend{Addr: netip.MustParseAddr("fd00:96::1"), Port: 53, Proto: 17}, Backends: []model.Backend{b("fd00::5", 53, 17)}}}
	if len(got) != 2 || !got[0].Equal(&want[0]) || !got[1].Equal(&want[1]) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if none, err := Parse([]byte("[]")); err != nil || len(none) != 0 {
		t.Error(none, err)
	}
	if one, err := Parse([]byte(`[{"frontend": "10.0.0.1:80", "backends": null}]`)); err != nil || len(one) != 1 {
		t.Error(one, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                       "a list without services is written []",
		"null":                   "is written []",
		"# only a comment\n":     "is written []",
		"{}":                     "not a list of services",
		"- x":                    "service 1:",
		"[":                      "yaml",
		"- {frontend: 10.0.0.1}": "no address with a port",
		"- {name: x}":            "service 1: no frontend",
		"- {frontend: '10.0.0.1:80', fronted: x}":                                          `unknown field "fronted"`,
		"- {frontend: '10.0.0.1:80', frontend: '10.0.0.2:80'}":                             "frontend",
		"- {frontend: '10.0.0.1:80/ICMP'}":                                                 "want TCP, UDP or SCTP",
		"- {frontend: '10.0.0.1:80'}\n- {frontend: '10.0.0.1:80/tcp'}":                     "service 2: frontend 10.0.0.1:80/TCP is service 1's already",
		"- {frontend: '10.0.0.1:80', id: 3}\n- {frontend: '10.0.0.2:80', id: 3}":           "service 2: id 3 is service 1's already",
		"- {frontend: '10.0.0.1:80', backends: ['10.0.0.2']}":                              "backend 1:",
		"- {frontend: '10.0.0.1:80', backends: [{address: '10.0.0.2:80', sate: active}]}":  `unknown field "sate"`,
		"- {frontend: '10.0.0.1:80', backends: [{address: '10.0.0.2:80', state: dead}]}":   `backend state "dead": want one of active`,
		"- {frontend: '10.0.0.1:80', backends: [{address: '10.0.0.2:80', weight: 70000}]}": "weight",
		"- {frontend: '10.0.0.1:80', type: Ingress}":                                       `service type "Ingress": want one of ClusterIP`,
		"- {frontend: '10.0.0.1:80', externalTrafficPolicy: Remote}":                       `externalTrafficPolicy: traffic policy "Remote"`,
		"- {frontend: '10.0.0.1:80', sourceRanges: [x], sourceRangesPolicy: maybe}":        "want allow or deny",
		"- {frontend: '10.0.0.1:80', affinity: 5}":                                         "affinity",
		"- {frontend: '10.0.0.1:80', selection: best}":                                     "want random or maglev",
		"- {frontend: '[fe80::1%eth0]:80'}":                                                "zone",
		"- {frontend: '10.0.0.1:99999'}":                                                   "no address with a port",
	} {
		if got, err := Parse([]byte(text)); !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%q: %v, %v; want %q", text, got, err, want)
		}
	}
}

// Whatever stands in the file: no crash, and what is accepted has one service for a frontend.
func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte("[]"))
	f.Add([]byte("- {frontend: '10.0.0.1:80'}\n---\n- x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := Parse(data)
		if err != nil {
			return
		}
		seen := map[model.Frontend]bool{}
		for _, s := range got {
			if seen[s.Frontend] || !s.Frontend.Addr.IsValid() {
				t.Errorf("%+v", s)
			}
			seen[s.Frontend] = true
		}
	})
}
