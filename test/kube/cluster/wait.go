package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hypha-net/hypha/internal/lab"
	"github.com/hypha-net/hypha/test/kube/machine"
)

// patience bounds each step of Up. The API server needs its time on a busy machine.
const patience = 4 * time.Minute

// tooOften is how many starts of one program are a failure, when it should have come up by now.
const tooOften = 10

// client asks the API server as an administrator.
type client struct {
	url  string
	http *http.Client
}

func (c *Cluster) api(s secrets) (*client, error) {
	admin, err := s.kubernetes.Client("kubernetes-admin", "system:masters")
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(admin.Cert, admin.Key)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.kubernetes.Pair().Cert)
	tr := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}}
	return &client{url: c.apiURL(), http: &http.Client{Transport: tr, Timeout: 10 * time.Second}}, nil
}

// get reads an object, or only whether there is one.
func (a *client) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+path, nil)
	if err != nil {
		return err
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %.300s", path, resp.Status, b)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(b, into)
}

// wait tries until there is no error. It gives up with the ends of the logs of the program that it waits for, and of what keeps ending.
func (c *Cluster) wait(ctx context.Context, name, program string, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			if err := c.broken(name); err != nil {
				return fmt.Errorf("%s of %s does not come up: %w", program, name, err)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s of %s does not come up: %w\n%s", program, name, err, c.tail(name, program))
		case <-tick.C:
		}
	}
}

// broken says what will not get better by waiting: a machine that has ended, a program that ends again and again.
func (c *Cluster) broken(name string) error {
	if _, alive, err := c.machine(name); err != nil || !alive {
		return errors.Join(fmt.Errorf("the machine has ended\n%s", c.tail(name, machine.Own)), err)
	}
	states, err := machine.States(c.path(name))
	if err != nil {
		return nil // it has not come that far
	}
	for _, s := range states {
		if s.Starts > tooOften {
			return fmt.Errorf("%s ended %d times, with %s\n%s", s.Name, s.Starts-1, s.Ended, c.tail(name, s.Name))
		}
	}
	return nil
}

func (c *Cluster) tail(name, program string) string {
	file := machine.Spec{Root: c.path(name)}.Log(program)
	return "the end of " + file + ":\n" + lab.Tail(file, 10)
}

func (c *Cluster) waitAPI(ctx context.Context, api *client) error {
	return c.wait(ctx, control, "kube-apiserver", func(ctx context.Context) error { return api.get(ctx, "/readyz", nil) })
}

// waitNodes waits until nodes are registered and have their ranges, and pods may be made in the default namespace.
func (c *Cluster) waitNodes(ctx context.Context, api *client) error {
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Spec     struct{ PodCIDRs []string }
		}
	}
	for _, name := range c.nodes() {
		if err := c.wait(ctx, name, "kubelet", func(ctx context.Context) error {
			if err := api.get(ctx, "/api/v1/nodes", &list); err != nil {
				return err
			}
			for _, n := range list.Items {
				if n.Metadata.Name == name {
					return nil
				}
			}
			return fmt.Errorf("node %s is not registered", name)
		}); err != nil {
			return err
		}
	}
	if err := c.wait(ctx, control, "kube-controller-manager", func(ctx context.Context) error {
		if err := api.get(ctx, "/api/v1/namespaces/default/serviceaccounts/default", nil); err != nil {
			return err
		}
		if err := api.get(ctx, "/api/v1/nodes", &list); err != nil {
			return err
		}
		for _, n := range list.Items {
			if len(n.Spec.PodCIDRs) == 0 {
				return fmt.Errorf("node %s has no range for pods", n.Metadata.Name)
			}
		}
		return nil
	}); err != nil {
		return err
	}
	ns, err := c.open(control)
	if err != nil {
		return err
	}
	return c.wait(ctx, control, "kube-scheduler", func(ctx context.Context) error {
		conn, err := ns.DialContext(ctx, "tcp", "127.0.0.1:10259")
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// importImages gives a node's containerd every archive there is.
func (c *Cluster) importImages(ctx context.Context, name string) error {
	socket := filepath.Join(c.path(name), containerdSocket)
	if err := c.wait(ctx, name, "containerd", func(ctx context.Context) error { return ctr(ctx, socket, "version") }); err != nil {
		return err
	}
	archives, err := filepath.Glob(filepath.Join(c.Images, "*.tar"))
	if err != nil {
		return err
	}
	slices.Sort(archives)
	for _, a := range archives {
		if err := ctr(ctx, socket, "--namespace", "k8s.io", "images", "import", a); err != nil {
			return fmt.Errorf("give %s to containerd of %s: %w", a, name, err)
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
