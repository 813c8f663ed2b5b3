package cluster

import (
	"context"
	_ "embed"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// DNSImage answers for the names of services and pods.
const DNSImage = "registry.k8s.io/coredns/coredns:v1.15.0"

// dns are its objects. Its pods wait until there is a network for them.
//
//go:embed dns.yaml
var dns string

func (c *Cluster) addDNS(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, filepath.Join(c.Programs, "kubectl"), "--kubeconfig", c.Kubeconfig(), "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(strings.NewReplacer("$IMAGE", DNSImage, "$ADDRESS", dnsVIP4).Replace(dns))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("add DNS: %w: %s", err, out)
	}
	return nil
}
