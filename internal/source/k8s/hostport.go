package k8s

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"github.com/hypha-net/hypha/internal/model"
)

// HostPorts are the services that a pod's hostPorts mean on its node, without numbers, for each IP version that the pod has. One that
// asks for a particular address has that one alone: whether it is the node's is for control to say.
func HostPorts(pod *corev1.Pod) (out []model.Service, errs error) {
	if pod.Spec.HostNetwork || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return nil, nil
	}
	ends := podIPs(pod)
	for _, p := range podPorts(pod) {
		if p.HostPort == 0 {
			continue
		}
		proto, err := model.ParseServiceProto(string(protocol(p.Protocol)))
		if err != nil || p.HostPort < 0 || p.HostPort > 65535 || p.ContainerPort < 1 || p.ContainerPort > 65535 {
			errs = joinf(errs, "host port %d/%s for %d: not possible", p.HostPort, p.Protocol, p.ContainerPort)
			continue
		}
		host := netip.Addr{}
		if p.HostIP != "" {
			if host, err = netip.ParseAddr(p.HostIP); err != nil || host.Zone() != "" {
				errs = joinf(errs, "host port %d: %q is no address", p.HostPort, p.HostIP)
				continue
			}
			host = host.Unmap()
		}
		for _, ip := range ends {
			if host.IsValid() && host.Is6() != ip.Is6() {
				continue
			}
			front := host
			switch {
			case host.IsValid():
			case ip.Is6():
				front = netip.IPv6Unspecified()
			default:
				front = netip.IPv4Unspecified()
			}
			out = append(out, model.Service{Name: pod.Name, Namespace: pod.Namespace, Type: model.ServiceHostPort,
				Frontend: model.Frontend{Addr: front, Port: uint16(p.HostPort), Proto: proto},
				Backends: []model.Backend{{Addr: ip, Port: uint16(p.ContainerPort), Proto: proto, Node: pod.Spec.NodeName}}})
		}
	}
	return out, errs
}

// podIPs are a pod's addresses, as far as it has them yet.
func podIPs(pod *corev1.Pod) (out []netip.Addr) {
	for _, s := range pod.Status.PodIPs {
		if ip, err := netip.ParseAddr(s.IP); err == nil {
			out = append(out, ip.Unmap())
		}
	}
	return out
}

// podPorts are the ports of all containers that run as long as the pod: init containers only where they are sidecars.
func podPorts(pod *corev1.Pod) (out []corev1.ContainerPort) {
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			out = append(out, c.Ports...)
		}
	}
	for i := range pod.Spec.Containers {
		out = append(out, pod.Spec.Containers[i].Ports...)
	}
	return out
}

func protocol(p corev1.Protocol) corev1.Protocol {
	if p == "" {
		return corev1.ProtocolTCP
	}
	return p
}
