package kube

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// containers are those of a workload, each with its command.
func containers(t *testing.T, o *unstructured.Unstructured) (names, commands []string) {
	t.Helper()
	list, found, err := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
	if err != nil || !found {
		t.Fatalf("%s %s has no containers: %v", o.GetKind(), o.GetName(), err)
	}
	for _, c := range list {
		c := c.(map[string]any)
		if c["image"] != "example.org/agent:1" {
			t.Errorf("%s: image %v", o.GetName(), c["image"])
		}
		names = append(names, c["name"].(string))
		var argv []string
		for _, a := range c["command"].([]any) {
			argv = append(argv, a.(string))
		}
		commands = append(commands, strings.Join(argv, " "))
	}
	return names, commands
}

func TestObjects(t *testing.T) {
	for name, c := range map[string]struct {
		nodes []string
		out   *outsideValues
		want  []string
	}{
		"two nodes": {[]string{"a.example.org", "b"}, newOutside(true), []string{"Namespace cilium-test-1",
			"ServiceAccount client", "Deployment client", "ServiceAccount client2", "Deployment client2", "ServiceAccount client3", "Deployment client3",
			"ServiceAccount echo-same-node", "Deployment echo-same-node", "Service echo-same-node",
			"ServiceAccount echo-other-node", "Deployment echo-other-node", "Service echo-other-node", "DaemonSet host-netns", "DaemonSet outside"}},
		"one node, nobody outside": {[]string{"a"}, nil, []string{"Namespace cilium-test-1", "ServiceAccount client", "Deployment client",
			"ServiceAccount client2", "Deployment client2", "ServiceAccount echo-same-node", "Deployment echo-same-node", "Service echo-same-node", "DaemonSet host-netns"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := workloads{Namespace: "cilium-test-1", Image: "example.org/agent:1", PullSecrets: `[{"name":"s"}]`, Port: port, PortName: portName, HostPort: hostPort,
				Hosts: text(c.nodes), Pods: podsOn(c.nodes), Outside: c.out}
			objects, err := w.objects()
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, o := range objects {
				got = append(got, o.GetKind()+" "+o.GetName())
				if _, known := resources[o.GetKind()]; !known {
					t.Errorf("no resource of kind %s is known", o.GetKind())
				}
				if o.GetKind() != "Deployment" && o.GetKind() != "DaemonSet" {
					continue
				}
				names, commands := containers(t, o)
				if !slices.Equal(names, []string{o.GetName()}) || !strings.HasPrefix(commands[0], "/usr/bin/hypha workload ") {
					t.Errorf("%s: %v %v", o.GetName(), names, commands)
				}
				if o.GetName() == "outside" && commands[0] != "/usr/bin/hypha workload outside --node-address=192.0.2.254/24,2001:db8:c0::fe/64 "+
					"--address=192.0.2.1/24,2001:db8:c0::1/64,192.0.2.2/24,2001:db8:c0::2/64" {
					t.Errorf("outside: %s", commands[0])
				}
				labels, _, err := unstructured.NestedStringMap(o.Object, "spec", "template", "metadata", "labels")
				if err != nil || labels["name"] != o.GetName() {
					t.Errorf("%s: labels %v, %v", o.GetName(), labels, err)
				}
				if secrets, _, _ := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "imagePullSecrets"); fmt.Sprint(secrets) != "[map[name:s]]" {
					t.Errorf("%s: secrets %v", o.GetName(), secrets)
				}
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}
