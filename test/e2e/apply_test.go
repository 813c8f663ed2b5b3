package e2e

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hypha-net/hypha/internal/testutil/score"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

const applyPort = 7777

// TestCase06Apply: a policy that is added to many counts for all of them once it is said to be in force, in the kernel's rows and
// for the first packet; and one that is taken away counts for none. How long that took is told; it decides the full size alone.
func TestCase06Apply(t *testing.T) {
	sc := score.Start(t, "6", "policy added and removed that selects every endpoint of a node")
	pods, rules, rounds := score.Size(8, 100), score.Size(40, 250), score.Size(5, 100)
	apps := max(4, pods/10) // with ten replicas each
	c := start(t, overlay, 1, map[string]any{"debug": false})
	n, r := c.Nodes[0], sc.Rand()
	var all []*cluster.Pod
	for i := range pods {
		p, err := c.Add(t.Context(), cluster.PodSpec{Name: fmt.Sprintf("w%d", i), Labels: []string{fmt.Sprintf("id=w%d", i%apps), "group=all"}, Idle: true})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	many := make([]string, rules)
	for i := range many {
		many[i] = applyRule("many", fmt.Sprintf("w%d", i%apps), 1000+i)
	}
	importPolicy(t, c, "["+strings.Join(many, ",")+"]")

	from := all[0]
	var added, removed []time.Duration
	var judged int
	for i := range rounds {
		began := time.Now()
		importPolicy(t, c, "["+applyRule("probe", "w0", applyPort)+"]")
		added = append(added, time.Since(began))
		targets := []*cluster.Pod{all[1+r.IntN(pods-2)], all[pods-1]}
		eps, err := n.Endpoints(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range eps {
			for _, p := range targets {
				if e.GetName() != p.Name {
					continue
				}
				if text, err := c.Hypha(t.Context(), n, "bpf", "policy", "get", fmt.Sprint(e.GetId())); err != nil || !strings.Contains(text, fmt.Sprint(applyPort)) {
					t.Errorf("%s: the rows of its policy lack the rule that is in force (%v):\n%s", p.Name, err, text)
				}
			}
		}
		var sinks []*sink
		for _, p := range targets {
			for _, v6 := range overlay.families() {
				s := newSink(t, from, p, v6)
				sinks = append(sinks, s)
				if judged++; !s.passes(uint32(i), yes) {
					t.Errorf("%s, %s: the first packet after the policy was in force did not pass", p.Name, family(v6))
				}
			}
		}
		began = time.Now()
		if err := c.DeletePolicies(t.Context(), "name=probe"); err != nil {
			t.Fatal(err)
		}
		removed = append(removed, time.Since(began))
		for _, s := range sinks {
			if judged++; s.passes(uint32(i), 30*time.Millisecond) {
				t.Error("a packet passed after the policy was gone")
			}
			s.close()
		}
	}
	sc.Count(2*rounds, fmt.Sprintf("changes at %d endpoints of %d apps with %d rules", pods, apps, rules))
	sc.Say("each of %d packets behind a change was judged by it; added: in force after %s; removed: %s; wanted p99 <= 100 ms", judged, spread(added), spread(removed))
	if at := percentile(added, 99); score.Full() && at > 100*time.Millisecond {
		t.Errorf("in force after %s (p99)", at)
	}
}

func applyRule(name, from string, port int) string {
	return fmt.Sprintf(`{"labels":[{"key":"name","value":"%s"}],"endpointSelector":{"matchLabels":{"group":"all"}},
		"ingress":[{"fromEndpoints":[{"matchLabels":{"id":"%s"}}],"toPorts":[{"ports":[{"port":"%d","protocol":"UDP"}]}]}]}`, name, from, port)
}

// sink is a pair of sockets between two pods.
type sink struct {
	t        *testing.T
	from, to *net.UDPConn
}

func newSink(t *testing.T, from, to *cluster.Pod, v6 bool) *sink {
	t.Helper()
	s := &sink{t: t}
	at := net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.Addr(v6), applyPort))
	err := to.NS.Do(func() (err error) { s.to, err = net.ListenUDP("udp", at); return err })
	if err == nil {
		err = from.NS.Do(func() (err error) { s.from, err = net.DialUDP("udp", nil, at); return err })
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// passes sends one datagram and says whether it arrives in time.
func (s *sink) passes(n uint32, timeout time.Duration) bool {
	s.t.Helper()
	var b [4]byte
	if _, err := s.from.Write(binary.BigEndian.AppendUint32(nil, n)); err != nil {
		s.t.Fatal(err)
	}
	if err := s.to.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		s.t.Fatal(err)
	}
	got, err := s.to.Read(b[:])
	return err == nil && got == len(b) && binary.BigEndian.Uint32(b[:]) == n
}

func (s *sink) close() {
	_ = s.from.Close()
	_ = s.to.Close()
}
