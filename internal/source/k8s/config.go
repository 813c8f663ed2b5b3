package k8s

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/hypha-net/hypha/internal/paths"
	"github.com/hypha-net/hypha/internal/version"
)

// Ways to have a node's pod ranges.
const (
	IPAMKubernetes  = "kubernetes"   // those of the Node, which the controller manager gives it
	IPAMClusterPool = "cluster-pool" // those of the CiliumNode, which the operator gives it
	IPAMMultiPool   = "multi-pool"   // blocks of CiliumPodIPPools, which the operator gives its CiliumNode as it needs them
)

// Config of a Store.
type Config struct {
	NodeName, ClusterName string
	ClusterID             uint32
	Paths                 paths.Paths
	// Server is the API server's URL; with a kubeconfig or inside of a pod it replaces theirs.
	Server string
	// Kubeconfig is a file with URL and credentials. Without one a pod's own are used, and outside of a pod none.
	Kubeconfig string
	IPAM       string
	// DefaultPool is, with multi-pool, where pods have their addresses from that no pool is said of.
	DefaultPool string
	// EndpointSlices says that what other nodes publish is read in CiliumEndpointSlices, which the operator has to keep.
	EndpointSlices bool
	Addrs          []netip.Addr // of this node, on the underlay
	IPv4, IPv6     bool         // whether workloads have addresses of the version
	QPS            float32      // requests per second; 0: 10
}

// Deps are what a Store works with.
type Deps struct {
	Log *slog.Logger
}

// requestTimeout bounds one request that is no watch.
const requestTimeout = 10 * time.Second

// rest finds the API server.
func (c *Config) rest() (*rest.Config, error) {
	conf, err := c.credentials()
	if err != nil {
		return nil, fmt.Errorf("find the API server: %w", err)
	}
	if c.Server != "" {
		conf.Host = c.Server
	}
	conf.UserAgent = "hypha-agent/" + version.Get().Version
	conf.QPS, conf.Burst = 10, 20
	if c.QPS > 0 {
		conf.QPS, conf.Burst = c.QPS, int(2*c.QPS)
	}
	return conf, nil
}

func (c *Config) credentials() (*rest.Config, error) {
	if c.Kubeconfig != "" {
		return clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	}
	conf, err := rest.InClusterConfig()
	if errors.Is(err, rest.ErrNotInCluster) && c.Server != "" {
		return &rest.Config{}, nil
	}
	return conf, err
}

func (c *Config) check() error {
	switch {
	case c.NodeName == "":
		return errors.New("no name of this node")
	case c.IPAM != IPAMKubernetes && c.IPAM != IPAMClusterPool && c.IPAM != IPAMMultiPool:
		return fmt.Errorf("IPAM mode %q: want %s, %s or %s", c.IPAM, IPAMKubernetes, IPAMClusterPool, IPAMMultiPool)
	case len(c.Addrs) == 0:
		return errors.New("this node has no address")
	case c.ClusterID > 255:
		return fmt.Errorf("cluster number %d: want 0 to 255", c.ClusterID)
	}
	return nil
}
