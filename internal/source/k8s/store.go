package k8s

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	corev1 "k8s.io/api/core/v1"
)

// Store is the cluster's state, and this node's share in it. Its methods may be called from any goroutine.
type Store struct {
	cfg     Config
	log     *slog.Logger
	server  string
	clients *clients
	health  *health

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	synced []<-chan struct{} // of all that is followed

	nodes      *Nodes
	endpoints  *Endpoints
	identities *Identities
	policies   *Policies
	services   *Services
	pods       *Pods
	podPools   *PodPools
}

// Open starts following the API server and returns without waiting for it. Close it.
func Open(ctx context.Context, cfg Config, deps Deps) (*Store, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("follow the API server: %w", err)
	}
	conf, err := cfg.rest()
	if err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, log: deps.Log, server: conf.Host}
	if s.clients, err = newClients(conf); err != nil {
		return nil, fmt.Errorf("follow the API server: %w", err)
	}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.health = newHealth(s)
	s.pods = newPods(s)
	s.podPools = newPodPools(s)
	s.nodes = newNodes(s)
	s.identities = newIdentities(s)
	s.endpoints = newEndpoints(s)
	s.policies = newPolicies(s)
	s.services = newServices(s)
	s.pods.follow()
	s.podPools.follow()
	s.nodes.follow()
	s.identities.follow()
	s.endpoints.follow()
	s.policies.follow()
	s.services.follow()
	return s, nil
}

func (s *Store) run(fn func(context.Context)) { s.wg.Go(func() { fn(s.ctx) }) }

// Close stops following and publishing. What this node published stays.
func (s *Store) Close() error {
	s.cancel()
	s.wg.Wait()
	return nil
}

// Nodes is the membership of the cluster.
func (s *Store) Nodes() *Nodes { return s.nodes }

// Endpoints is who lives where.
func (s *Store) Endpoints() *Endpoints { return s.endpoints }

// Identities is what numbers label sets have.
func (s *Store) Identities() *Identities { return s.identities }

// Policies is what policies there are.
func (s *Store) Policies() *Policies { return s.policies }

// Services are the services of the cluster.
func (s *Store) Services() *Services { return s.services }

// Pods are the pods of this node.
func (s *Store) Pods() *Pods { return s.pods }

// Ready waits until every table is complete.
func (s *Store) Ready(ctx context.Context) error {
	for _, synced := range s.synced {
		select {
		case <-synced:
		case <-s.ctx.Done():
			return errors.New("the store is closed")
		case <-ctx.Done():
			s.health.mu.Lock()
			defer s.health.mu.Unlock()
			if err := s.health.err(); err != nil {
				return fmt.Errorf("wait for the API server: %w: %w", ctx.Err(), err)
			}
			return fmt.Errorf("wait for the API server: %w", ctx.Err())
		}
	}
	return nil
}

// complete says whether every table is.
func (s *Store) complete() bool {
	for _, synced := range s.synced {
		select {
		case <-synced:
		default:
			return false
		}
	}
	return true
}

// PodPools are the pools that this node's pods have their addresses from, and its share in them.
func (s *Store) PodPools() *PodPools { return s.podPools }

func key(namespace, name string) string {
	if namespace == corev1.NamespaceAll {
		return name
	}
	return namespace + "/" + name
}
