package cli

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/hypha-net/hypha/internal/connectivity"
)

// fakeCluster is well from the second question on, unless its context is "ill".
type fakeCluster struct {
	ClusterFlags
	asked   int
	options map[string]string
}

func (c *fakeCluster) Status(context.Context) (string, bool, error) {
	c.asked++
	if c.Context == "away" {
		return "", false, fmt.Errorf("the API server does not answer")
	}
	well := c.Context != "ill" && (c.asked > 1 || c.Context == "well")
	return fmt.Sprintf("cluster in %s: well %v\n", c.Namespace, well), well, nil
}

func (c *fakeCluster) Config(context.Context) (map[string]string, error) { return c.options, nil }

func (c *fakeCluster) Place(connectivity.Options) (connectivity.Place, error) {
	return nil, fmt.Errorf("no place in %s", c.Namespace)
}

func (c *fakeCluster) SetConfig(_ context.Context, values map[string]*string) error {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if v := values[name]; v != nil {
			fmt.Fprintf(os.Stderr, "set %s to %s\n", name, *v)
		} else {
			fmt.Fprintf(os.Stderr, "delete %s\n", name)
		}
	}
	return nil
}
