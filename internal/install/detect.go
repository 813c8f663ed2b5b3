package install

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Detect adds what a cluster without kube-proxy needs to values that do not say: kubeProxyReplacement, and where agents reach the
// API server. server is the URL that this program reaches it by; where nodes could not use that, being a loopback address,
// it is the first endpoint that the API server names itself. It returns what it added, in words.
func Detect(ctx context.Context, c kubernetes.Interface, server string, values map[string]any) (string, error) {
	for _, name := range []string{"kubeProxyReplacement", "k8sServiceHost"} {
		if _, said := values[name]; said {
			return "", nil
		}
	}
	_, err := c.AppsV1().DaemonSets("kube-system").Get(ctx, "kube-proxy", metav1.GetOptions{})
	if err == nil {
		return "", nil
	}
	if !apierrors.IsNotFound(err) {
		return "", fmt.Errorf("look for kube-proxy: %w", err)
	}
	host, port, err := hostPort(server)
	if err != nil {
		return "", err
	}
	if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ip.IsLoopback() {
		if host, port, err = endpoint(ctx, c); err != nil {
			return "", err
		}
	}
	values["kubeProxyReplacement"], values["k8sServiceHost"], values["k8sServicePort"] = true, host, port
	return fmt.Sprintf("no kube-proxy here: kubeProxyReplacement=true k8sServiceHost=%s k8sServicePort=%d", host, port), nil
}

func hostPort(server string) (string, int, error) {
	u, err := url.Parse(server)
	if err != nil || u.Host == "" {
		return "", 0, fmt.Errorf("the API server's address %q is no URL", server)
	}
	port := 443
	if u.Scheme == "http" {
		port = 80
	}
	if p := u.Port(); p != "" {
		if port, err = strconv.Atoi(p); err != nil {
			return "", 0, fmt.Errorf("the API server's address %q has no port: %w", server, err)
		}
	}
	return u.Hostname(), port, nil
}

func endpoint(ctx context.Context, c kubernetes.Interface) (string, int, error) {
	slices, err := c.DiscoveryV1().EndpointSlices("default").List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=kubernetes"})
	if err != nil {
		return "", 0, fmt.Errorf("look for the API server's endpoints: %w", err)
	}
	for _, s := range slices.Items {
		for _, e := range s.Endpoints {
			for _, a := range e.Addresses {
				for _, p := range s.Ports {
					if p.Port != nil && net.ParseIP(a) != nil {
						return a, int(*p.Port), nil
					}
				}
			}
		}
	}
	return "", 0, fmt.Errorf("the API server names no endpoint of its own: set k8sServiceHost and k8sServicePort")
}
