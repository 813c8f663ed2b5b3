package cluster

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Load gives every node of a cluster that runs the images there are by now.
func (c *Cluster) Load(ctx context.Context) error {
	s, err := c.load()
	if err != nil {
		return err
	}
	if !s.Ready {
		return errors.New("the cluster was not finished")
	}
	c.Nodes, c.Member = s.Nodes, s.Member
	return c.importAll(ctx)
}

// importAll gives every node's containerd every archive there is.
func (c *Cluster) importAll(ctx context.Context) error {
	archives, err := filepath.Glob(filepath.Join(c.Images, "*.tar"))
	if err != nil {
		return err
	}
	for _, n := range c.nodes() {
		socket := filepath.Join(c.path(n.name), containerdSocket)
		if err := c.wait(ctx, n.name, "containerd", func(ctx context.Context) error { return ctr(ctx, socket, "version") }); err != nil {
			return err
		}
		for _, a := range archives {
			if err := ctr(ctx, socket, "--namespace", "k8s.io", "images", "import", a); err != nil {
				return fmt.Errorf("give %s to containerd of %s: %w", a, n.name, err)
			}
		}
	}
	return nil
}

func ctr(ctx context.Context, socket string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ctr", append([]string{"--address", socket, "--connect-timeout", "3s"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
