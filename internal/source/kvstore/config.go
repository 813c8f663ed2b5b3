package kvstore

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/hypha-net/hypha/internal/paths"
)

// Defaults of Config.
const (
	DefaultLocal      = "127.0.0.1:2379"
	DefaultLeaseTTL   = 15 * time.Minute
	DefaultGCInterval = 15 * time.Minute
	DefaultCluster    = "default"
	defaultQuota      = 2 << 30 // bytes
	defaultTxnOps     = 120     // what any etcd takes (its default is 128)
	embeddedTxnOps    = 8192
	maxRequest        = 1 << 20 // bytes in one transaction; etcd's default limit is 1.5 MiB
	requestTimeout    = 5 * time.Second
)

// Config says which store and who we are in it. The zero value of each field is its default.
type Config struct {
	NodeName    string // required
	ClusterName string // DefaultCluster
	ClusterID   uint32 // 0: identities 256..65535; n: n<<16 .. n<<16+65535
	Paths       paths.Paths

	// Local is where the embedded store serves tools of this node, a loopback host:port, mutual TLS with the
	// certificates under Paths.PKI(); "" for none. The agent itself uses a socket only root can open.
	Local string
	// Listen are https URLs on which the embedded store serves other nodes: https://10.0.0.1:2379. Mutual TLS.
	Listen []string

	// Endpoints are the URLs of an external store; when there are any, nothing is embedded.
	Endpoints []string
	TLS       TLSFiles

	LeaseTTL   time.Duration // how long what this node published outlives it; at least 5 s
	GCInterval time.Duration // between two rounds of identity collection; an unused one goes after two more rounds or more
	Idle       time.Duration // for how long an identity must have been unused, rounded up to rounds; none: two rounds
	// Quarantine is how long the number of a collected identity is not given to other labels; 2*LeaseTTL.
	Quarantine time.Duration
	CheckEvery time.Duration // between two checks of the connection; 10 s
	Retry      time.Duration // longest wait between two attempts to reach the store; 5 s
}

// TLSFiles are the credentials for an external store: PEM files, re-read for every new connection.
type TLSFiles struct {
	CA, Cert, Key string
	ServerName    string // expected in the server's certificate, if not the endpoint's host
}

// Deps are what a Store works with.
type Deps struct {
	Log *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	if c.NodeName == "" {
		return c, errors.New("kvstore: node name is empty")
	}
	if c.Paths.State == "" {
		return c, errors.New("kvstore: state directory is empty")
	}
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&c.LeaseTTL, DefaultLeaseTTL)
	def(&c.GCInterval, DefaultGCInterval)
	def(&c.Quarantine, 2*c.LeaseTTL)
	def(&c.CheckEvery, 10*time.Second)
	def(&c.Retry, 5*time.Second)
	if c.LeaseTTL < 5*time.Second {
		return c, fmt.Errorf("kvstore-lease-ttl %v: must be at least 5s", c.LeaseTTL)
	}
	if c.ClusterName == "" {
		c.ClusterName = DefaultCluster
	}
	if c.ClusterID > 255 {
		return c, fmt.Errorf("cluster id %d: must be 0..255", c.ClusterID)
	}
	if len(c.Endpoints) > 0 {
		if len(c.Listen) > 0 {
			return c, errors.New("etcd-listen is for the embedded store: it cannot be used with etcd-endpoints")
		}
		return c, c.checkEndpoints()
	}
	return c, c.checkListeners()
}

func (c Config) checkEndpoints() error {
	for _, e := range c.Endpoints {
		u, err := url.Parse(e)
		if err != nil || u.Host == "" && u.Path == "" {
			return fmt.Errorf("etcd-endpoints %q: want a URL like https://10.0.0.1:2379", e)
		}
		switch u.Scheme {
		case "http", "https", "unix":
		default:
			return fmt.Errorf("etcd-endpoints %q: want a URL like https://10.0.0.1:2379", e)
		}
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		return errors.New("etcd-cert-file and etcd-key-file go together")
	}
	return nil
}

func (c Config) checkListeners() error {
	if c.Local != "" {
		ap, err := netip.ParseAddrPort(c.Local)
		if err != nil {
			return fmt.Errorf("etcd-local-address %q: want a loopback address with port: %w", c.Local, err)
		}
		if !ap.Addr().IsLoopback() {
			return fmt.Errorf("etcd-local-address %q is not a loopback address: use etcd-listen for other nodes", c.Local)
		}
	}
	for _, l := range c.Listen {
		u, err := url.Parse(l)
		if err != nil || u.Scheme != "https" {
			return fmt.Errorf("etcd-listen %q: want https://<address>:<port>; the store is not served in the clear", l)
		}
		host, _, err := net.SplitHostPort(u.Host)
		if err != nil {
			return fmt.Errorf("etcd-listen %q: %w", l, err)
		}
		if _, err := netip.ParseAddr(host); err != nil {
			return fmt.Errorf("etcd-listen %q: want an address, not a name: %w", l, err)
		}
	}
	return nil
}

// ReadEtcdConfig reads an etcd client configuration file as `--kvstore-opt etcd.config=FILE` names one: endpoints,
// trusted-ca-file, cert-file, key-file.
func ReadEtcdConfig(path string) (endpoints []string, files TLSFiles, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, TLSFiles{}, fmt.Errorf("read etcd configuration: %w", err)
	}
	var f struct {
		Endpoints []string `json:"endpoints"`
		CA        string   `json:"trusted-ca-file"`
		CAFile    string   `json:"ca-file"`
		Cert      string   `json:"cert-file"`
		Key       string   `json:"key-file"`
	}
	if err := yaml.UnmarshalStrict(data, &f); err != nil {
		return nil, TLSFiles{}, fmt.Errorf("read etcd configuration %s: %w", path, err)
	}
	if len(f.Endpoints) == 0 {
		return nil, TLSFiles{}, fmt.Errorf("read etcd configuration %s: no endpoints", path)
	}
	if f.CA == "" {
		f.CA = f.CAFile
	}
	return f.Endpoints, TLSFiles{CA: f.CA, Cert: f.Cert, Key: f.Key}, nil
}
