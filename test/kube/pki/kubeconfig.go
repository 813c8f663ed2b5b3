package pki

import (
	"fmt"

	"sigs.k8s.io/yaml"
)

// Kubeconfig is a client's configuration: the cluster of this name at a URL, reached as the user of the certificate.
func Kubeconfig(cluster, url, user string, authority, client Pair) ([]byte, error) {
	type named map[string]any
	b, err := yaml.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": cluster,
		"clusters": []named{{"name": cluster, "cluster": map[string]any{"server": url, "certificate-authority-data": authority.Cert}}},
		"users":    []named{{"name": user, "user": map[string]any{"client-certificate-data": client.Cert, "client-key-data": client.Key}}},
		"contexts": []named{{"name": cluster, "context": map[string]any{"cluster": cluster, "user": user}}},
	})
	if err != nil {
		return nil, fmt.Errorf("make client configuration of %s: %w", user, err)
	}
	return b, nil
}
