package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hypha-net/hypha/internal/lab"
	"github.com/hypha-net/hypha/test/kube/machine"
)

// patience bounds each step of Up. The API server needs its time on a busy machine.
const patience = 4 * time.Minute

// tooOften is how many starts of one program are a failure, when it should have come up by now.
const tooOften = 10

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
	for _, n := range c.nodes() {
		if err := c.wait(ctx, n.name, "kubelet", func(ctx context.Context) error {
			if err := api.get(ctx, "/api/v1/nodes", &list); err != nil {
				return err
			}
			for _, item := range list.Items {
				if item.Metadata.Name == n.name {
					return nil
				}
			}
			return fmt.Errorf("node %s is not registered", n.name)
		}); err != nil {
			return err
		}
	}
	if c.Member { // kubelet must not give itself this label
		if err := api.patch(ctx, "/api/v1/nodes/"+control, `{"metadata":{"labels":{"`+controlRole+`":""}}}`); err != nil {
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
