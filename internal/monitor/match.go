package monitor

import (
	"fmt"
	"slices"

	"github.com/hypha-net/hypha/internal/model"
)

var types = map[string]uint8{"drop": model.EventDrop, "trace": model.EventTrace, "policy-verdict": model.EventPolicyVerdict}

// Match builds a filter: event types by name (none: all), and endpoint numbers at either end, at the source, at the
// destination (none: any). An unknown type is an error that lists the known ones.
func Match(names []string, related, from, to []uint32) (func(*model.Event) bool, error) {
	var want []uint8
	for _, n := range names {
		t, ok := types[n]
		if !ok {
			return nil, fmt.Errorf("unknown event type %q: want drop, trace or policy-verdict", n)
		}
		want = append(want, t)
	}
	has := func(set []uint32, id uint16) bool { return len(set) == 0 || slices.Contains(set, uint32(id)) }
	return func(e *model.Event) bool {
		if len(want) > 0 && !slices.Contains(want, e.Type) {
			return false
		}
		return has(from, e.SrcEndpoint) && has(to, e.DstEndpoint) && (has(related, e.SrcEndpoint) || has(related, e.DstEndpoint))
	}, nil
}
