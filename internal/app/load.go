package app

import (
	"fmt"
	"strings"
	"time"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/monitor"
)

// shortages are drops that mean that this node lacks something, and not that a packet was not to pass.
var shortages = map[uint8]struct{ what, remedy string }{
	155: {"new connections found no place on record", "raise bpf-ct-global-max and restart the agent"},
	167: {"packets to the outside got no address and port of the node's", "widen masquerade-port-range, have workloads keep connections instead of making new ones, or, where the leaving device has no address of that IP version, give it one"},
}

// loadStatus says what the datapath has too little of.
func (a *Agent) loadStatus(ms []*agentv1.MapStatus, add addFunc) {
	err := a.trend.look(time.Now())
	recent, window := a.trend.recent()
	last := "in the last " + window.Round(time.Second).String()

	var full []string
	for _, m := range ms {
		// These forget what was idle for longest to make room, so they do not drop; fragments come and go in seconds.
		if (m.Name == maps.CT || m.Name == maps.NAT) && nearlyFull(m) {
			full = append(full, fmt.Sprintf("%s %d/%d", m.Name, m.Entries, m.MaxEntries))
		}
	}
	if len(full) > 0 {
		add("connections", stateWarning, "nearly full: "+strings.Join(full, ", ")+"; those idle for longest are forgotten, and judged anew when they speak",
			"see who makes them (`hypha bpf ct list global`), or raise bpf-ct-global-max, bpf-nat-global-max and restart the agent")
	} else {
		add("connections", stateOK, "there is room", "")
	}

	var short, mend []string
	for reason, s := range shortages {
		if n := recent.drops[reason]; n > 0 {
			short = append(short, fmt.Sprintf("%s: %s dropped %s (%s, reason %d)", s.what, count(n, "packet"), last, monitor.DropReason(reason), reason))
			mend = append(mend, s.remedy)
		}
	}
	switch {
	case err != nil:
		add("drops", stateFailure, err.Error(), "see the agent's log")
	case len(short) > 0:
		add("drops", stateWarning, strings.Join(short, "\n"), strings.Join(mend, "; "))
	default:
		add("drops", stateOK, "none for want of room "+last, "")
	}

	total := a.eventCounter.lost.Load()
	if recent.lost > 0 {
		add("events", stateWarning, fmt.Sprintf("%s lost %s, %d since the start: flows lack them, packets are not affected", count(recent.lost, "event"), last, total),
			"raise bpf-events-ring-size, or tell less: bpf-events-trace-enabled=false")
	} else {
		add("events", stateOK, fmt.Sprintf("none lost %s, %d since the start", last, total), "")
	}
	if by, when := a.trend.jump(); !when.IsZero() {
		add("clock", stateOK, fmt.Sprintf("was moved by %s at %s; leases, connections and intervals do not go by it", by, when.Format("15:04:05")), "")
	}
}

// nearlyFull says whether less than a tenth of a map is left.
func nearlyFull(m *agentv1.MapStatus) bool {
	return m.MaxEntries > 0 && uint64(m.Entries)*10 >= uint64(m.MaxEntries)*9
}
