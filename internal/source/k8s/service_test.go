package k8s

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/yaml"

	"github.com/hypha-net/hypha/internal/model"
)

// line is a service for people: what differs from nothing.
func line(s *model.Service) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", s.Type, s.Frontend)
	for _, e := range s.Backends {
		fmt.Fprintf(&b, " %s", e)
		if e.State != model.BackendActive {
			fmt.Fprintf(&b, "(%s)", e.State)
		}
		if e.Node != "" {
			fmt.Fprintf(&b, "@%s", e.Node)
		}
	}
	for _, x := range []struct {
		on   bool
		text string
	}{{s.ExternalLocal, " external-local"}, {s.InternalLocal, " internal-local"}, {s.RangesDeny, " deny"}, {s.Elsewhere, " elsewhere"}} {
		if x.on {
			b.WriteString(x.text)
		}
	}
	if s.Affinity != 0 {
		fmt.Fprintf(&b, " affinity %s", s.Affinity)
	}
	if s.HealthPort != 0 {
		fmt.Fprintf(&b, " health %d", s.HealthPort)
	}
	if len(s.Ranges) > 0 {
		fmt.Fprintf(&b, " ranges %v", s.Ranges)
	}
	if s.Prefer != model.PreferNone {
		fmt.Fprintf(&b, " %s", s.Prefer)
	}
	for _, e := range s.Backends {
		if e.Hints+e.NodeHints != "" {
			fmt.Fprintf(&b, " %s for %s/%s", e.Addr, e.Hints, e.NodeHints)
		}
	}
	if s.Select != model.SelectDefault {
		fmt.Fprintf(&b, " %s", s.Select)
	}
	return b.String()
}

func lines(ss []model.Service) (out []string) {
	for i := range ss {
		out = append(out, line(&ss[i]))
	}
	return out
}

const slice4 = `{metadata: {name: a}, addressType: IPv4, ports: [{name: web, port: 8080}], endpoints: [
  {addresses: [10.1.0.2], nodeName: n2}, {addresses: [10.1.0.1], nodeName: n1, conditions: {ready: true, serving: true}}]}`

func TestFrontends(t *testing.T) {
	const ends = " 10.1.0.1:8080/TCP@n1 10.1.0.2:8080/TCP@n2"
	for name, c := range map[string]struct {
		svc, ann string
		slices   []string
		want     []string
		err      string
	}{
		"cluster IP":     {svc: `{clusterIP: 10.96.0.1, ports: [{name: web, port: 80}]}`, slices: []string{slice4}, want: []string{"ClusterIP 10.96.0.1:80/TCP" + ends}},
		"headless":       {svc: `{clusterIP: None, ports: [{name: web, port: 80}]}`, slices: []string{slice4}},
		"name":           {svc: `{type: ExternalName, externalName: example.org, ports: [{name: web, port: 80}]}`, slices: []string{slice4}},
		"no address yet": {svc: `{ports: [{name: web, port: 80}]}`, slices: []string{slice4}},
		"nobody there":   {svc: `{clusterIP: 10.96.0.1, ports: [{name: other, port: 80}]}`, slices: []string{slice4}, want: []string{"ClusterIP 10.96.0.1:80/TCP"}},
		"both families": {svc: `{type: NodePort, clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, "fd00:96::1"], ports: [{name: web, port: 80, nodePort: 30080}]}`,
			slices: []string{slice4, `{metadata: {name: b}, addressType: IPv6, ports: [{name: web, port: 8080}], endpoints: [{addresses: ["fd00::1"]}]}`},
			want: []string{"ClusterIP 10.96.0.1:80/TCP" + ends, "ClusterIP [fd00:96::1]:80/TCP [fd00::1]:8080/TCP",
				"NodePort 0.0.0.0:30080/TCP" + ends, "NodePort [::]:30080/TCP [fd00::1]:8080/TCP"}},
		"ports by name and protocol": {svc: `{clusterIP: 10.96.0.1, ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53}]}`,
			slices: []string{`{metadata: {name: a}, addressType: IPv4, ports: [{name: dns, port: 5353, protocol: UDP}, {name: dns-tcp, port: 5354}], endpoints: [{addresses: [10.1.0.1]}]}`},
			want:   []string{"ClusterIP 10.96.0.1:53/UDP 10.1.0.1:5353/UDP", "ClusterIP 10.96.0.1:53/TCP 10.1.0.1:5354/TCP"}},
		"load balancer": {svc: `{type: LoadBalancer, clusterIP: 10.96.0.1, externalTrafficPolicy: Local, healthCheckNodePort: 31000, ports: [{name: web, port: 80, nodePort: 30080}],
			loadBalancerSourceRanges: [192.0.2.0/24, " 198.51.100.0/24"], sessionAffinity: ClientIP}|{loadBalancer: {ingress: [{ip: 203.0.113.1}, {ip: 203.0.113.2, ipMode: Proxy}, {hostname: example.org}, {ip: "2001:db8::1"}]}}`,
			slices: []string{slice4}, want: []string{"ClusterIP 10.96.0.1:80/TCP" + ends + " affinity 3h0m0s",
				"NodePort 0.0.0.0:30080/TCP" + ends + " external-local affinity 3h0m0s health 31000",
				"LoadBalancer 203.0.113.1:80/TCP" + ends + " external-local affinity 3h0m0s health 31000 ranges [192.0.2.0/24 198.51.100.0/24]",
				"LoadBalancer [2001:db8::1]:80/TCP external-local deny affinity 3h0m0s health 31000 ranges [::/0]"}},
		"external IPs, local inside": {svc: `{clusterIP: 10.96.0.1, internalTrafficPolicy: Local, externalIPs: [192.0.2.7, nonsense], ports: [{name: web, port: 80}],
			sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 30}}}`, slices: []string{slice4},
			want: []string{"ClusterIP 10.96.0.1:80/TCP" + ends + " internal-local affinity 30s", "ExternalIPs 192.0.2.7:80/TCP" + ends + " affinity 30s"}, err: `"nonsense" is no address`},
		"states": {svc: `{clusterIP: 10.96.0.1, ports: [{port: 80}]}`, slices: []string{`{metadata: {name: a}, addressType: IPv4, ports: [{port: 1}], endpoints: [
			{addresses: [10.1.0.1], conditions: {ready: false}}, {addresses: [10.1.0.2], conditions: {ready: false, serving: true, terminating: true}},
			{addresses: [10.1.0.3], conditions: {ready: false, serving: false, terminating: true}}, {addresses: [10.1.0.4], conditions: {ready: true, serving: true, terminating: true}}]}`,
			// moving from one slice to another, it is in both
			`{metadata: {name: b}, addressType: IPv4, ports: [{port: 1}], endpoints: [{addresses: [10.1.0.2], conditions: {ready: true}}]}`,
			`{metadata: {name: c}, addressType: FQDN, ports: [{port: 1}], endpoints: [{addresses: [example.org]}]}`},
			want: []string{"ClusterIP 10.96.0.1:80/TCP 10.1.0.2:1/TCP 10.1.0.3:1/TCP(quarantined) 10.1.0.4:1/TCP"}},
		"near": {svc: `{clusterIP: 10.96.0.1, ports: [{port: 80}], trafficDistribution: PreferSameZone}`, slices: []string{`{metadata: {name: a}, addressType: IPv4, ports: [{port: 1}], endpoints: [
			{addresses: [10.1.0.1], zone: z1, hints: {forZones: [{name: z2}, {name: z1}]}}, {addresses: [10.1.0.2], hints: {forNodes: [{name: n2}]}}]}`},
			want: []string{"ClusterIP 10.96.0.1:80/TCP 10.1.0.1:1/TCP 10.1.0.2:1/TCP PreferSameZone 10.1.0.1 for z1,z2/ 10.1.0.2 for /n2"}},
		"near, unheard of": {svc: `{clusterIP: 10.96.0.1, ports: [{name: web, port: 80}], trafficDistribution: PreferMoon}`, slices: []string{slice4},
			want: []string{"ClusterIP 10.96.0.1:80/TCP" + ends}, err: "PreferMoon"},
		"annotations": {svc: `{type: LoadBalancer, clusterIP: 10.96.0.1, ports: [{name: web, port: 80, nodePort: 30080}], loadBalancerSourceRanges: [192.0.2.0/24]}|{loadBalancer: {ingress: [{ip: 203.0.113.1}]}}`,
			ann: `{service.cilium.io/type: "LoadBalancer", service.cilium.io/lb-algorithm: maglev, service.cilium.io/src-ranges-policy: deny}`, slices: []string{slice4},
			want: []string{"LoadBalancer 203.0.113.1:80/TCP" + ends + " deny ranges [192.0.2.0/24] maglev"}},
		"on this node": {svc: `{type: NodePort, clusterIP: 10.96.0.1, ports: [{name: web, port: 80, nodePort: 30080}]}`, ann: `{service.cilium.io/node: beefy, service.cilium.io/global: "true", service.cilium.io/affinity: local}`, slices: []string{slice4},
			want: []string{"ClusterIP 10.96.0.1:80/TCP" + ends, "NodePort 0.0.0.0:30080/TCP" + ends}},
		"on another node": {svc: `{type: NodePort, clusterIP: 10.96.0.1, ports: [{name: web, port: 80, nodePort: 30080}]}`, ann: `{service.cilium.io/node: small}`, slices: []string{slice4},
			want: []string{"ClusterIP 10.96.0.1:80/TCP" + ends, "NodePort 0.0.0.0:30080/TCP" + ends + " elsewhere"}},
		"on selected nodes": {svc: `{type: NodePort, clusterIP: 10.96.0.1, ports: [{name: web, port: 80, nodePort: 30080}]}`, ann: `{service.cilium.io/node: small, service.cilium.io/node-selector: "role in (edge, core)"}`, slices: []string{slice4},
			want: []string{"ClusterIP 10.96.0.1:80/TCP" + ends, "NodePort 0.0.0.0:30080/TCP" + ends}},
		"on other nodes": {svc: `{type: NodePort, clusterIP: 10.96.0.1, ports: [{name: web, port: 80, nodePort: 30080}]}`, ann: `{service.cilium.io/node-selector: "role!=edge"}`, slices: []string{slice4},
			want: []string{"ClusterIP 10.96.0.1:80/TCP" + ends, "NodePort 0.0.0.0:30080/TCP" + ends + " elsewhere"}},
		"on nodes unknown": {svc: `{type: NodePort, clusterIP: 10.96.0.1, ports: [{name: web, port: 80, nodePort: 30080}]}`, ann: `{service.cilium.io/node-selector: "role in edge"}`, slices: []string{slice4},
			want: []string{"ClusterIP 10.96.0.1:80/TCP" + ends, "NodePort 0.0.0.0:30080/TCP" + ends + " elsewhere"}, err: "node-selector"},
		"not done": {svc: `{type: NodePort, clusterIP: 10.96.0.1, ports: [{name: web, port: 80, nodePort: 30080}]}`, ann: `{service.cilium.io/forwarding-mode: dsr, service.cilium.io/proxy-delegation: delegate-if-local, other: x}`, slices: []string{slice4},
			want: []string{"ClusterIP 10.96.0.1:80/TCP" + ends, "NodePort 0.0.0.0:30080/TCP" + ends}, err: "service.cilium.io/forwarding-mode is not supported; annotation service.cilium.io/proxy-delegation"},
		"annotations that mean nothing": {svc: `{clusterIP: 10.96.0.1, ports: [{name: web, port: 80}]}`, ann: `{service.cilium.io/lb-algorithm: best, service.cilium.io/src-ranges-policy: maybe}`,
			slices: []string{slice4}, want: []string{"ClusterIP 10.96.0.1:80/TCP" + ends}, err: "lb-algorithm"},
	} {
		t.Run(name, func(t *testing.T) {
			svc := &corev1.Service{}
			svc.Namespace, svc.Name = "ns", "s"
			spec, status, _ := strings.Cut(c.svc, "|")
			read(t, spec, &svc.Spec)
			read(t, status, &svc.Status)
			read(t, c.ann, &svc.Annotations)
			var all []*discoveryv1.EndpointSlice
			for _, text := range c.slices {
				s := &discoveryv1.EndpointSlice{}
				read(t, text, s)
				all = append(all, s)
			}
			got, err := Frontends(svc, all, map[string]string{"role": "edge", "service.cilium.io/node": "beefy"})
			if d := cmp.Diff(c.want, lines(got)); d != "" {
				t.Error(d)
			}
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
		})
	}
}

func read(t *testing.T, text string, into any) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
		t.Fatal(err)
	}
}

func TestHostPorts(t *testing.T) {
	for name, c := range map[string]struct {
		spec, ips string
		want      []string
		err       string
	}{
		"both families": {`{containers: [{name: c, ports: [{containerPort: 80, hostPort: 8080}, {containerPort: 81}]}]}`, "10.1.0.1,fd00::1",
			[]string{"HostPort 0.0.0.0:8080/TCP 10.1.0.1:80/TCP@n1", "HostPort [::]:8080/TCP [fd00::1]:80/TCP@n1"}, ""},
		"one family asked for": {`{containers: [{name: c, ports: [{containerPort: 80, hostPort: 8080, hostIP: "0.0.0.0", protocol: UDP}]}]}`, "10.1.0.1,fd00::1",
			[]string{"HostPort 0.0.0.0:8080/UDP 10.1.0.1:80/UDP@n1"}, ""},
		"one address asked for": {`{containers: [{name: c, ports: [{containerPort: 80, hostPort: 8080, hostIP: 127.0.0.1}, {containerPort: 80, hostPort: 8080, hostIP: "2001:db8::1"}]}]}`, "10.1.0.1,fd00::1",
			[]string{"HostPort 127.0.0.1:8080/TCP 10.1.0.1:80/TCP@n1", "HostPort [2001:db8::1]:8080/TCP [fd00::1]:80/TCP@n1"}, ""},
		"no address":     {`{containers: [{name: c, ports: [{containerPort: 80, hostPort: 8080, hostIP: here}]}]}`, "10.1.0.1", nil, "is no address"},
		"the node's own": {`{hostNetwork: true, containers: [{name: c, ports: [{containerPort: 80, hostPort: 80}]}]}`, "10.1.0.1", nil, ""},
		"sidecar, init": {`{initContainers: [{name: a, restartPolicy: Always, ports: [{containerPort: 1, hostPort: 11}]}, {name: b, ports: [{containerPort: 2, hostPort: 12}]}], containers: []}`,
			"10.1.0.1", []string{"HostPort 0.0.0.0:11/TCP 10.1.0.1:1/TCP@n1"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{}
			read(t, c.spec, &pod.Spec)
			pod.Spec.NodeName = "n1"
			for ip := range strings.SplitSeq(c.ips, ",") {
				pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: ip})
			}
			got, err := HostPorts(pod)
			if d := cmp.Diff(c.want, lines(got)); d != "" {
				t.Error(d)
			}
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
			pod.Status.Phase = corev1.PodSucceeded
			if got, _ := HostPorts(pod); got != nil {
				t.Errorf("a pod that has ended: %v", lines(got))
			}
		})
	}
}
