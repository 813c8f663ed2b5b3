package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/table"
)

// ErrUnreachable says that who keeps the state did not answer. What was asked may or may not have happened there.
var ErrUnreachable = errors.New("the store of the cluster's state is unreachable")

// Policy is one policy that was imported. Who keeps it does not look into Raw.
type Policy struct {
	Key  string          `json:"key"` // unique
	Kind string          `json:"kind,omitempty"`
	Ref  model.PolicyRef `json:"ref"`
	Raw  json.RawMessage `json:"raw"`
}

// KindCIDRGroup is the kind of rows that are no policy but a list of prefixes. Raw is a parse.CIDRGroup as JSON, and else what
// parse.Read takes.
const KindCIDRGroup = "CiliumCIDRGroup"

// PolicySnapshot is what was imported, as of exactly one revision.
type PolicySnapshot struct {
	Revision   uint64
	Policies   table.Snapshot[string, Policy]
	Heard      time.Time     // when the first of the changes came that make it differ from the one before
	Complete   bool          // who keeps it has answered; else this is what the last run knew
	Superseded chan struct{} // closed once another snapshot is current
}

// Changed is closed once another snapshot is current.
func (s PolicySnapshot) Changed() <-chan struct{} { return s.Superseded }

// WaitRevision waits until the current snapshot has at least a revision.
func WaitRevision(ctx context.Context, current func() PolicySnapshot, rev uint64) error {
	for {
		snap := current()
		if snap.Revision >= rev {
			return nil
		}
		select {
		case <-snap.Changed():
		case <-ctx.Done():
			return fmt.Errorf("wait for policy revision %d (now %d): %w", rev, snap.Revision, ctx.Err())
		}
	}
}

// Service is a service as the cluster knows it.
type Service struct {
	model.Service
	Owner string `json:"owner,omitempty"` // who alone may change it: FileOwner(node); "": anybody
}

// FileOwner owns the services of a node's services file.
func FileOwner(node string) string { return ownerFile + node }

const ownerFile = "file/"

// FileNode is the node whose services file a service comes from, "" if it comes from none.
func (s *Service) FileNode() string {
	node, ok := strings.CutPrefix(s.Owner, ownerFile)
	if !ok {
		return ""
	}
	return node
}

// Moved says that labels this node uses got another number. It happens only when the node was cut off for longer than its number
// was kept for it, and the number was collected and given to other labels meanwhile.
type Moved struct {
	Labels   model.Labels
	Old, New model.IdentityID
}

// Chooser picks a node's pod ranges, given who has which now. prefer are those the node had before, which it should
// choose again if they are free: the store may have lost them. See ipam.Ranges.
type Chooser func(node string, taken map[netip.Prefix]string, prefer []netip.Prefix) ([]netip.Prefix, error)
