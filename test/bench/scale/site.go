package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/hypha-net/hypha/internal/source/kvstore"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// site is a node with an agent of one build, and a client of its store.
type site struct {
	build
	*cluster.Cluster
	node  *cluster.Node
	store *clientv3.Client
	etcd  *exec.Cmd // nil: the agent's own
}

const etcdURL = "http://127.0.0.1:2379" // in the node's namespace

// newSite makes the node. external: its store is an etcd of its own. On error nothing is left.
func newSite(ctx context.Context, o options, b build, external bool) (s *site, err error) {
	s = &site{build: b}
	opts := map[string]any{"debug": false}
	if o.prof != "" && b.name == "now" {
		opts["pprof"] = true
	}
	cfg := cluster.Config{Bin: b.Binaries, Nodes: 1, IPv4: true, IPv6: true, Options: opts}
	if external {
		opts["etcd-listen"], opts["etcd-endpoints"] = []string{}, []string{etcdURL}
		cfg.Prepare = s.startEtcd
	}
	if s.Cluster, err = cluster.New(ctx, cfg); err != nil {
		return nil, errors.Join(err, s.stopEtcd())
	}
	s.node = s.Nodes[0]
	if !external {
		if s.store, err = s.dial("unix://"+filepath.Join(s.node.Paths.Etcd(), "client.sock"), nil); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// Close removes everything.
func (s *site) Close() error {
	var err error
	if s.store != nil {
		err = s.store.Close()
	}
	return errors.Join(err, s.stopEtcd(), s.Cluster.Close())
}

func (s *site) stopEtcd() error {
	if s.etcd == nil {
		return nil
	}
	_ = s.etcd.Process.Kill()
	_ = s.etcd.Wait()
	s.etcd = nil
	return nil
}

// startEtcd starts a real etcd inside the node's namespace and waits until it answers.
func (s *site) startEtcd(c *cluster.Cluster) (err error) {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the benchmark's own binary: %w", err)
	}
	log, err := os.Create(filepath.Join(c.Dir, "etcd.log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	s.etcd = exec.Command(exe, "etcd", "--data-dir", filepath.Join(c.Dir, "etcd"), "--listen-client-urls", etcdURL,
		"--advertise-client-urls", etcdURL, "--listen-peer-urls", "http://127.0.0.1:2380", "--log-level", "error")
	s.etcd.Stdout, s.etcd.Stderr = log, log
	ns := c.Nodes[0].NS
	if err := ns.Start(s.etcd); err != nil {
		s.etcd = nil
		return fmt.Errorf("start etcd: %w", err)
	}
	s.store, err = s.dial(etcdURL, func(ctx context.Context, addr string) (conn net.Conn, err error) {
		err = ns.Do(func() error {
			conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", addr)
			return err
		})
		return conn, err
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, err = s.store.Get(ctx, "ready", clientv3.WithSerializable())
	return err
}

func (s *site) dial(url string, dial func(context.Context, string) (net.Conn, error)) (*clientv3.Client, error) {
	cfg := clientv3.Config{Endpoints: []string{url}, DialTimeout: 10 * time.Second, Logger: zap.NewNop()}
	if dial != nil {
		cfg.DialOptions = append(cfg.DialOptions, grpc.WithContextDialer(dial))
	}
	cli, err := clientv3.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("dial etcd: %w", err)
	}
	return cli, nil
}

// write stores keys, a hundred in each transaction, several transactions at a time.
func (s *site) write(ctx context.Context, kvs []kvstore.KV) error {
	return s.change(ctx, kvs, func(kv kvstore.KV) clientv3.Op { return clientv3.OpPut(kv.Key, string(kv.Value)) })
}

// remove deletes keys likewise.
func (s *site) remove(ctx context.Context, kvs []kvstore.KV) error {
	return s.change(ctx, kvs, func(kv kvstore.KV) clientv3.Op { return clientv3.OpDelete(kv.Key) })
}

func (s *site) change(ctx context.Context, kvs []kvstore.KV, op func(kvstore.KV) clientv3.Op) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for part := range slices.Chunk(kvs, 100) {
		var ops []clientv3.Op
		for _, kv := range part {
			ops = append(ops, op(kv))
		}
		g.Go(func() error {
			_, err := s.store.Txn(ctx).Then(ops...).Commit()
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("write to the store: %w", err)
	}
	return nil
}
