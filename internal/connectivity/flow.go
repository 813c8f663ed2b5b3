package connectivity

import (
	"bufio"
	"bytes"
	"fmt"
	"net/netip"

	"google.golang.org/protobuf/encoding/protojson"

	flowpb "github.com/hypha-net/hypha/api/flow"
	observerpb "github.com/hypha-net/hypha/api/observer"
	"github.com/hypha-net/hypha/internal/workload"
)

// ParseFlows reads what `hypha observe -o jsonpb` printed.
func ParseFlows(text []byte) ([]*flowpb.Flow, error) {
	var out []*flowpb.Flow
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r observerpb.GetFlowsResponse
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("read flows: %w", err)
		}
		if f := r.GetFlow(); f != nil {
			out = append(out, f)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read flows: %w", err)
	}
	return out, nil
}

// about says whether a flow is of an action's own packets, not of their answers.
func (a *Action) about(f *flowpb.Flow) bool {
	ip := f.GetIP()
	if ip.GetSource() != a.source() || a.Addr.IsValid() && ip.GetDestination() != a.Addr.String() {
		return false
	}
	var from, to uint32
	switch l4 := f.GetL4(); {
	case l4.GetTCP() != nil:
		from, to = l4.GetTCP().GetSourcePort(), l4.GetTCP().GetDestinationPort()
	case l4.GetUDP() != nil:
		from, to = l4.GetUDP().GetSourcePort(), l4.GetUDP().GetDestinationPort()
	case l4.GetICMPv4() != nil, l4.GetICMPv6() != nil:
		return a.Port == 0
	}
	local, err := netip.ParseAddrPort(a.probe.Local)
	return err == nil && uint32(local.Port()) == from && uint32(a.Port) == to
}

// check compares an action that went unanswered with what nodes have dropped: that is what makes it a refusal.
func (a *Action) check(drops []*flowpb.Flow) error {
	var other *flowpb.Flow
	for _, f := range drops {
		if !a.about(f) {
			continue
		}
		if f.GetDropReasonDesc() == a.Want.Reason && (f.GetTrafficDirection() == flowpb.TrafficDirection_EGRESS) == a.Want.Egress {
			return nil
		}
		other = f
	}
	if other != nil {
		return fmt.Errorf("wanted is %s, but it was dropped otherwise: %s", a.Want, tell(other))
	}
	return fmt.Errorf("nobody answered, but no node tells of having dropped it: wanted is %s", a.Want)
}

// explain finds out why an action went unanswered that should not have.
func (a *Action) explain(drops []*flowpb.Flow) {
	if a.probe.Outcome == workload.Reached || a.probe.Local == "" && a.Port != 0 {
		return
	}
	told := map[string]bool{}
	for _, f := range drops {
		if text := tell(f); a.about(f) && !told[text] {
			told[text] = true
			a.Remarks = append(a.Remarks, "dropped: "+text)
		}
	}
}

// tell says what a flow is in one line.
func tell(f *flowpb.Flow) string {
	return fmt.Sprintf("%s -> %s on %s, %s %s: %s", f.GetIP().GetSource(), f.GetIP().GetDestination(), f.GetNodeName(), f.GetTrafficDirection(),
		f.GetDropReasonDesc(), f.GetSummary())
}
