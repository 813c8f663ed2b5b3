package connectivity

import (
	"context"
	"time"

	flowpb "github.com/hypha-net/hypha/api/flow"
)

// Place is a cluster to test in. Calls come at the same time where it says so.
type Place interface {
	// Name is how messages call the cluster.
	Name() string
	// Deploy makes what is missing of the workloads, waits until they can be used, and removes policies that an earlier run has left.
	Deploy(ctx context.Context, log *Log) (*Site, error)
	// Exec runs `hypha workload ARGS` where a peer is, and returns what it printed. A code other than 0 is an *ExitError. Several at a time.
	Exec(ctx context.Context, from *Peer, args ...string) ([]byte, error)
	// Apply puts policies in force and returns when every node enforces them.
	Apply(ctx context.Context, policies []Document) error
	// Remove takes all policies of this run away and returns when no node enforces any of them.
	Remove(ctx context.Context) error
	// Drops are the flows that any node has dropped since so long ago.
	Drops(ctx context.Context, since time.Duration) ([]*flowpb.Flow, error)
	// Close removes what Deploy has made.
	Close(ctx context.Context) error
}

// ExitError is a command that ran and ended with another code than 0.
type ExitError struct {
	Code   int
	Stderr string
}

// Error implements error.
func (e *ExitError) Error() string { return e.Stderr }
