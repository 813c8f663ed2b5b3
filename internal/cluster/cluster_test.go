package cluster

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	metafake "k8s.io/client-go/metadata/fake"
)

const namespace = "kube-system"

func meta(name string, labels map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: namespace, Labels: labels}
}

func daemonSet(ready int32) *appsv1.DaemonSet {
	return &appsv1.DaemonSet{ObjectMeta: meta(agents, map[string]string{"helm.sh/chart": "cilium-1.2.3"}), Spec: appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"k8s-app": "cilium"}}},
		Status: appsv1.DaemonSetStatus{DesiredNumberScheduled: 2, NumberReady: ready, NumberAvailable: ready, UpdatedNumberScheduled: 2}}
}

func deployment() *appsv1.Deployment {
	two := int32(2)
	return &appsv1.Deployment{ObjectMeta: meta(operator, nil), Spec: appsv1.DeploymentSpec{Replicas: &two, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"name": operator}}},
		Status: appsv1.DeploymentStatus{Replicas: 2, ReadyReplicas: 2, AvailableReplicas: 2, UpdatedReplicas: 2}}
}

func pod(name, label, value, image string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: meta(name, map[string]string{label: value}), Spec: corev1.PodSpec{NodeName: "n1", HostNetwork: true, Containers: []corev1.Container{{Name: "c", Image: image}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning}}
}

// workload is a pod with a network of its own.
func workload(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
}

// names knows endpoints, as namespace/name.
func names(t *testing.T, endpoints ...string) *metafake.FakeMetadataClient {
	t.Helper()
	scheme := metafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	var all []runtime.Object
	for _, e := range endpoints {
		namespace, name, _ := strings.Cut(e, "/")
		all = append(all, &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "cilium.io/v2", Kind: "CiliumEndpoint"},
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}})
	}
	return metafake.NewSimpleMetadataClient(scheme, all...)
}

func TestStatus(t *testing.T) {
	waiting := pod("cilium-b", "k8s-app", "cilium", "agent:1")
	waiting.Status.Phase = corev1.PodPending
	waiting.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "cilium-agent", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{
		Reason: "CrashLoopBackOff", Message: "back-off\x1b[31m"}}, LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Message: "no room\n"}}}}
	others := []runtime.Object{deployment(), pod("op-a", "name", operator, "operator:1"), pod("op-b", "name", operator, "operator:1"),
		pod("cilium-a", "k8s-app", "cilium", "agent:1"), pod("stranger", "k8s-app", "x", "x:1"),
		workload("a"), workload("b")}
	for name, tc := range map[string]struct {
		objects []runtime.Object
		well    bool
		want    string
	}{
		"well": {append([]runtime.Object{daemonSet(2), pod("cilium-b", "k8s-app", "cilium", "agent:1")}, others...), true, `
Cilium:         OK
Operator:       OK
Hubble Relay:   disabled
ClusterMesh:    disabled

DaemonSet             cilium            Desired: 2, Ready: 2/2, Available: 2/2
Deployment            cilium-operator   Desired: 2, Ready: 2/2, Available: 2/2
Containers:           cilium            Running: 2
                      cilium-operator   Running: 2
Cluster Pods:         1/2 managed by Cilium
Helm chart version:   1.2.3
Image versions        cilium            agent:1: 2
                      cilium-operator   operator:1: 2
`},
		"half": {append([]runtime.Object{daemonSet(1), waiting}, others...), false, `
Cilium:         2 errors
Operator:       OK
Hubble Relay:   disabled
ClusterMesh:    disabled

DaemonSet             cilium            Desired: 2, Ready: 1/2, Available: 1/2
Deployment            cilium-operator   Desired: 2, Ready: 2/2, Available: 2/2
Containers:           cilium            Pending: 1, Running: 1
                      cilium-operator   Running: 2
Helm chart version:   1.2.3
Image versions        cilium            agent:1: 2
                      cilium-operator   operator:1: 2
Errors:               cilium            pod cilium-b on n1: cilium-agent: CrashLoopBackOff: back-off\x1b[31m: no room
                      cilium            1 of 2 pods are not ready
`},
		"none": {nil, false, `
Cilium:         1 error
Operator:       1 error
Hubble Relay:   disabled
ClusterMesh:    disabled

Errors:   cilium            daemonset cilium is not there: install it with ` + "`hypha install`" + `, or name its --namespace
          cilium-operator   deployment cilium-operator is not there: install it with ` + "`hypha install`" + `, or name its --namespace
`},
	} {
		t.Run(name, func(t *testing.T) {
			state, err := New(fake.NewClientset(tc.objects...), names(t, "default/a", "gone/b"), namespace).Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(strings.TrimPrefix(tc.want, "\n"), Text(state)); d != "" || state.Well() != tc.well {
				t.Errorf("well: %v\n%s", state.Well(), d)
			}
		})
	}
}

func TestOldVersions(t *testing.T) {
	d := daemonSet(2)
	d.Status.UpdatedNumberScheduled, d.Generation = 1, 3
	state, err := New(fake.NewClientset(d), names(t), namespace).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"the cluster has not looked at its newest version yet", "1 of 2 pods are of an older version"}
	if diff := cmp.Diff(want, state.Parts[0].Errors); diff != "" {
		t.Error(diff)
	}
}

func TestConfig(t *testing.T) {
	api := fake.NewClientset(daemonSet(2), &corev1.ConfigMap{ObjectMeta: meta(configMap, nil), Data: map[string]string{"debug": "false", "mtu": "1400"}})
	c := New(api, names(t), namespace)
	on := "true"
	if err := c.SetConfig(t.Context(), map[string]*string{"debug": &on, "mtu": nil}); err != nil {
		t.Fatal(err)
	}
	got, err := c.Config(t.Context())
	if d := cmp.Diff(map[string]string{"debug": "true"}, got); d != "" || err != nil {
		t.Error(d, err)
	}
	d, err := api.AppsV1().DaemonSets(namespace).Get(t.Context(), agents, metav1.GetOptions{})
	if err != nil || d.Spec.Template.Annotations["kubectl.kubernetes.io/restartedAt"] == "" {
		t.Error("agents do not start anew", err)
	}
	if err := New(fake.NewClientset(), names(t), namespace).SetConfig(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "not installed in namespace kube-system") {
		t.Errorf("no release: %v", err)
	}
}
