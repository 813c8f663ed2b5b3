package kube

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/hypha-net/hypha/internal/connectivity"
)

const (
	port       = 8080 // of echo servers
	portName   = "http-8080"
	hostPort   = 4000
	deployTime = 5 * time.Minute
	reachTime  = 30 * time.Second // until what is deployed is known everywhere
	hostLabel  = "kubernetes.io/hostname"
)

// Deploy implements connectivity.Place.
func (p *Place) Deploy(ctx context.Context, log *connectivity.Log) (*connectivity.Site, error) {
	if err := p.findAgents(ctx); err != nil {
		return nil, err
	}
	s := &connectivity.Site{Namespace: p.options.Namespace, Port: port, PortName: portName, HostPort: hostPort, Missing: map[connectivity.Need]string{}}
	config, err := p.config(ctx)
	if err != nil {
		return nil, err
	}
	nodes, err := p.nodes(ctx, s)
	if err != nil {
		return nil, err
	}
	if len(nodes) == 1 && !p.options.SingleNode {
		log.Line("ℹ️  ", "Only one node can be used: what needs two is left out")
	}
	if config["kube-proxy-replacement"] != "true" {
		s.Missing[connectivity.HostPort] = "host ports need kubeProxyReplacement"
		s.HostPort = 0
	}
	p.deployed = true
	if err := p.clean(ctx, log); err != nil {
		return nil, err
	}
	w := workloads{Namespace: s.Namespace, Image: p.image(), Port: port, PortName: portName, HostPort: s.HostPort, Hosts: text(nodes), Pods: podsOn(nodes)}
	if secrets := p.agents[0].Spec.ImagePullSecrets; len(secrets) > 0 && p.options.Image == "" {
		w.PullSecrets = text(secrets)
	}
	if err := p.external(s, &w, config["devices"]); err != nil {
		return nil, err
	}
	objects, err := w.objects()
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		if k := o.GetKind(); k != "ServiceAccount" {
			log.Line("✨ ", "[%s] Deploying %s %s...", p.name, strings.ToLower(k), o.GetName())
		}
		if err := p.put(ctx, o); err != nil {
			return nil, err
		}
	}
	if err := p.await(ctx, log, s, w); err != nil {
		return nil, err
	}
	return s, p.reach(ctx, log, s)
}

func (p *Place) image() string {
	if p.options.Image != "" {
		return p.options.Image
	}
	for _, c := range p.agents[0].Spec.Containers {
		if c.Name == agentContainer {
			return c.Image
		}
	}
	return p.agents[0].Spec.Containers[0].Image
}

// config are the options of the cluster's agents.
func (p *Place) config(ctx context.Context) (map[string]string, error) {
	m, err := p.api.CoreV1().ConfigMaps(p.options.AgentNamespace).Get(ctx, configMap, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read options of the agents: %w", err)
	}
	return m.Data, nil
}

// nodes notes those with an agent, and returns the one or two that workloads are to run on, as their labels name them.
func (p *Place) nodes(ctx context.Context, s *connectivity.Site) ([]string, error) {
	list, err := p.api.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("look for nodes: %w", err)
	}
	var use []string
	for _, n := range list.Items {
		if !slices.ContainsFunc(p.agents, func(a corev1.Pod) bool { return a.Spec.NodeName == n.Name }) {
			continue
		}
		node := connectivity.Node{Name: n.Name}
		for _, a := range n.Status.Addresses {
			if addr, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP {
				node.Addrs = append(node.Addrs, addr.Unmap())
			}
		}
		s.Nodes = append(s.Nodes, node)
		if len(use) < 2 && (len(use) == 0 || !p.options.SingleNode) && usable(&n) && labels.SelectorFromSet(p.options.NodeSelector).Matches(labels.Set(n.Labels)) {
			use = append(use, n.Labels[hostLabel])
		}
	}
	if len(use) == 0 {
		return nil, errors.New("no node can be used: each lacks an agent that is ready, has a taint, or has not the labels of --node-selector")
	}
	return use, nil
}

// usable says whether pods without tolerations may run on a node.
func usable(n *corev1.Node) bool {
	return !n.Spec.Unschedulable && n.Labels[hostLabel] != "" &&
		!slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Effect != corev1.TaintEffectPreferNoSchedule })
}

// external decides what is outside.
func (p *Place) external(s *connectivity.Site, w *workloads, devices string) error {
	ext, given, err := p.options.External()
	if err != nil {
		return err
	}
	v6 := slices.ContainsFunc(s.Nodes, func(n connectivity.Node) bool { return slices.ContainsFunc(n.Addrs, netip.Addr.Is6) })
	switch {
	case given:
		s.External = ext
		s.Missing[connectivity.FromOutside] = "no machine outside is made where --external-target names one"
	case strings.TrimSpace(devices) != "":
		why := "the agents' option devices names their devices to the outside, so no other can be made: give --external-target and the like"
		s.Missing[connectivity.World], s.Missing[connectivity.FromOutside] = why, why
	default:
		w.Outside = newOutside(v6)
		s.External = w.Outside.External
	}
	return nil
}

// clean makes room: for another namespace, where one is going, and of policies that are left.
func (p *Place) clean(ctx context.Context, log *connectivity.Log) error {
	if p.options.ForceDeploy {
		if err := p.drop(ctx, "Namespace", "", p.options.Namespace); err != nil {
			return err
		}
	}
	said := false
	err := wait.PollUntilContextTimeout(ctx, time.Second, deployTime, true, func(ctx context.Context) (bool, error) {
		n, err := p.api.CoreV1().Namespaces().Get(ctx, p.options.Namespace, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		if n.DeletionTimestamp != nil && !said {
			log.Line("⌛ ", "[%s] Waiting for namespace %s to disappear...", p.name, n.Name)
			said = true
		}
		return n.DeletionTimestamp == nil, nil
	})
	if err != nil {
		return fmt.Errorf("wait for namespace %s to go: %w", p.options.Namespace, err)
	}
	return p.leftover(ctx)
}

// await waits until all pods are ready, and notes them.
func (p *Place) await(ctx context.Context, log *connectivity.Log, s *connectivity.Site, w workloads) error {
	for _, want := range w.Pods {
		log.Line("⌛ ", "[%s] Waiting for deployment %s/%s to become ready...", p.name, s.Namespace, want.Name)
		found, err := p.podsOf(ctx, want.Name, 1)
		if err != nil {
			return err
		}
		peer := p.peer(&found[0], "")
		s.V6 = peer.Addr(true).IsValid()
		if !want.Echo {
			s.Clients = append(s.Clients, peer)
			continue
		}
		s.Echos = append(s.Echos, peer)
		svc, err := p.api.CoreV1().Services(s.Namespace).Get(ctx, want.Name, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("look for service %s: %w", want.Name, err)
		}
		s.Services = append(s.Services, connectivity.Service{Name: want.Name, Host: want.Name, Port: port, NodePort: int(svc.Spec.Ports[0].NodePort), Echo: peer})
	}
	if !s.V6 {
		s.External.V6 = connectivity.Block{}
	}
	used := strings.Count(w.Hosts, ",") + 1
	for _, set := range []string{"host-netns", "outside"} {
		if set == "outside" && w.Outside == nil {
			continue
		}
		log.Line("⌛ ", "[%s] Waiting for daemonset %s/%s to become ready...", p.name, s.Namespace, set)
		found, err := p.podsOf(ctx, set, used)
		if err != nil {
			return err
		}
		for i := range found {
			if set == "outside" {
				o := p.peer(&found[i], set)
				o.Led = true
				o.Addrs = []netip.Addr{s.External.V4.IP}
				if s.V6 {
					o.Addrs = append(o.Addrs, s.External.V6.IP)
				}
				s.Outside = append(s.Outside, o)
			} else {
				s.Hosts = append(s.Hosts, p.peer(&found[i], ""))
			}
		}
	}
	return nil
}

// podsOf are so many pods of a name, once they are ready.
func (p *Place) podsOf(ctx context.Context, name string, count int) ([]corev1.Pod, error) {
	var found []corev1.Pod
	var last error
	err := wait.PollUntilContextTimeout(ctx, 500*time.Millisecond, deployTime, true, func(ctx context.Context) (bool, error) {
		list, err := p.api.CoreV1().Pods(p.options.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "name=" + name})
		if err != nil {
			return false, err
		}
		found, last = nil, errors.New("there are too few pods")
		for _, q := range list.Items {
			if ready(&q) {
				found = append(found, q)
			} else if q.DeletionTimestamp == nil {
				if hopeless(&q) {
					return false, fmt.Errorf("pod %s ends again and again%s: see its log", q.Name, waits(&q))
				}
				last = fmt.Errorf("pod %s is %s%s", q.Name, q.Status.Phase, waits(&q))
			}
		}
		return len(found) >= count, nil
	})
	if err != nil {
		if wait.Interrupted(err) && ctx.Err() == nil {
			err = fmt.Errorf("not after %s: %w", deployTime, last)
		}
		return nil, fmt.Errorf("wait for %s to become ready: %w", name, err)
	}
	return found, nil
}

// hopeless says whether a pod has ended too often to wait for it.
func hopeless(q *corev1.Pod) bool {
	return slices.ContainsFunc(q.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool { return c.RestartCount >= 3 })
}

// waits says what the containers of a pod wait for.
func waits(q *corev1.Pod) string {
	var out strings.Builder
	for _, c := range q.Status.ContainerStatuses {
		if w := c.State.Waiting; w != nil {
			fmt.Fprintf(&out, ", %s: %s", w.Reason, w.Message)
		}
	}
	for _, c := range q.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			fmt.Fprintf(&out, ", %s", c.Message)
		}
	}
	return out.String()
}

func (p *Place) peer(q *corev1.Pod, netns string) *connectivity.Peer {
	peer := &connectivity.Peer{Name: q.Namespace + "/" + q.Name, Node: q.Spec.NodeName, Labels: q.Labels, Handle: pod{q.Namespace, q.Name, netns}}
	for _, ip := range q.Status.PodIPs {
		if addr, err := netip.ParseAddr(ip.IP); err == nil {
			peer.Addrs = append(peer.Addrs, addr.Unmap())
		}
	}
	return peer
}

// reach waits until what is deployed can be reached as tests begin with: names of services, and the outside. Where that takes too long the
// tests go on all the same: they say what is in the way.
func (p *Place) reach(ctx context.Context, log *connectivity.Log, s *connectivity.Site) error {
	var wg sync.WaitGroup
	for _, from := range s.Clients {
		var targets []string
		for _, svc := range s.Services {
			targets = append(targets, fmt.Sprintf("http://%s:%d", svc.Host, svc.Port))
		}
		if s.External.Name != "" {
			targets = append(targets, "http://"+s.External.Name)
		}
		for _, target := range targets {
			log.Line("⌛ ", "[%s] Waiting for pod %s to reach %s...", p.name, from.Name, target)
			wg.Go(func() {
				if err := p.reached(ctx, from, target); err != nil && ctx.Err() == nil {
					log.Line("⚠️  ", "[%s] Pod %s does not reach %s after %s: %s", p.name, from.Name, target, reachTime, err)
				}
			})
		}
	}
	wg.Wait()
	return ctx.Err()
}

func (p *Place) reached(ctx context.Context, from *connectivity.Peer, target string) error {
	ctx, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	var last error
	for {
		out, err := p.Exec(ctx, from, "probe", target)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err
			if len(out) > 0 {
				last = errors.New(strings.TrimSpace(string(out)))
			}
		}
		select {
		case <-ctx.Done():
			return last
		case <-time.After(time.Second):
		}
	}
}

// Close implements connectivity.Place.
func (p *Place) Close(ctx context.Context) error {
	if !p.deployed {
		return nil
	}
	return errors.Join(p.Remove(ctx), p.drop(ctx, "Namespace", "", p.options.Namespace))
}
