package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// operator are options of hypha-operator, which reads the same directory.
var operator = map[string]bool{
	"agent-not-ready-taint-key": true, "auto-create-cilium-pod-ip-pools": true, "ces-max-ciliumendpoints-per-ces": true, "ces-rate-limits": true,
	"cilium-endpoint-gc-interval": true, "cluster-pool-ipv4-cidr": true, "cluster-pool-ipv4-mask-size": true,
	"cluster-pool-ipv6-cidr": true, "cluster-pool-ipv6-mask-size": true, "default-lb-service-ipam": true, "enable-lb-ipam": true,
	"nodes-gc-interval": true, "operator-prometheus-serve-addr": true, "pod-restart-selector": true, "remove-cilium-node-taints": true, "set-cilium-is-up-condition": true,
	"set-cilium-node-taints": true, "skip-crd-creation": true, "unmanaged-pod-watcher-interval": true,
}

// readDir reads a directory of options as Kubernetes mounts a ConfigMap: a file for each, its name the option's and its
// content the value. What starts with a dot is how the mount keeps its versions. The operator's own options are left out.
func readDir(dir string) (map[string]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read configuration directory: %w", err)
	}
	values := map[string]string{}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || operator[e.Name()] {
			continue
		}
		path := filepath.Join(dir, e.Name())
		info, err := os.Stat(path) // a link, usually
		if err != nil {
			return nil, fmt.Errorf("read configuration directory: %w", err)
		}
		if !info.Mode().IsRegular() {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read configuration directory: %w", err)
		}
		values[e.Name()] = strings.TrimSpace(string(b))
	}
	return values, nil
}
