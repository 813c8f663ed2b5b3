package connectivity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	flowpb "github.com/hypha-net/hypha/api/flow"
	"github.com/hypha-net/hypha/internal/workload"
)

// Action is one attempt to reach somebody.
type Action struct {
	Test, Scenario, Name string
	From                 *Peer
	To                   *Peer      // who is behind the target; nil: nobody of the site's
	Addr                 netip.Addr // where packets go to in the end; invalid: not known
	Port                 int
	Target               string // for `hypha workload probe`

	Want    Result
	Err     error // nil: it went as wanted
	Remarks []string
	probe   workload.Probe
}

// String names the action as the field's tool does.
func (a *Action) String() string {
	return fmt.Sprintf("%s/%s/%s: %s (%s) -> %s (%s)", a.Test, a.Scenario, a.Name, a.From.Name, a.source(), a.destination(), strings.TrimPrefix(a.Target, "http://"))
}

func (a *Action) source() string {
	if from := a.From.Addr(a.Addr.Is6()); from.IsValid() {
		return from.String()
	}
	return "any"
}

func (a *Action) destination() string {
	if a.To != nil {
		return a.To.Name
	}
	return "outside"
}

// Result is what is to come of an action.
type Result struct {
	Dropped bool
	Egress  bool              // where: by the sender's policy, else by the receiver's
	Reason  flowpb.DropReason // what the node says that drops
}

// Results.
var (
	OK                 = Result{}
	EgressDefaultDeny  = Result{true, true, flowpb.DropReason_POLICY_DENIED}
	EgressDeny         = Result{true, true, flowpb.DropReason_POLICY_DENY}
	IngressDefaultDeny = Result{true, false, flowpb.DropReason_POLICY_DENIED}
	IngressDeny        = Result{true, false, flowpb.DropReason_POLICY_DENY}
)

// String says it in words.
func (r Result) String() string {
	if !r.Dropped {
		return "an answer"
	}
	side, reason := "ingress", "a deny rule"
	if r.Egress {
		side = "egress"
	}
	if r.Reason == flowpb.DropReason_POLICY_DENIED {
		reason = "default deny"
	}
	return fmt.Sprintf("a drop at %s by %s", side, reason)
}

// patience is how long actions wait.
type patience struct{ answer, refusal time.Duration }

// run tries, and judges by whether there was an answer alone.
func (a *Action) run(ctx context.Context, p Place, patience patience) {
	wait := patience.answer
	if a.Want.Dropped {
		wait = patience.refusal
	}
	out, err := p.Exec(ctx, a.From, "probe", "--timeout", wait.String(), a.Target)
	var exit *ExitError
	if err != nil && (!errors.As(err, &exit) || len(out) == 0) {
		a.Err = fmt.Errorf("run the probe: %w", err)
		return
	}
	if err := json.Unmarshal(out, &a.probe); err != nil {
		a.Err = fmt.Errorf("read what the probe printed: %w: %q", err, out)
		return
	}
	switch got := a.probe; {
	case !a.Want.Dropped && got.Outcome != workload.Reached:
		a.Err = fmt.Errorf("%s after %s: %s", got.Outcome, got.Took.Round(time.Millisecond), got.Error)
	case a.Want.Dropped && got.Outcome == workload.Reached:
		a.Err = fmt.Errorf("reached after %s, but wanted is %s", got.Took.Round(time.Microsecond), a.Want)
	case a.Want.Dropped && got.Outcome != workload.TimedOut:
		a.Err = fmt.Errorf("%s: %s; wanted is %s, which is silent", got.Outcome, got.Error, a.Want)
	}
}
