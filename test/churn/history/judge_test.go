package history

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hypha-net/hypha/internal/control/policy/oracle"
	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/model"
)

const ms = time.Millisecond

var cfg = Config{Wait: 10 * ms, Bound: 50 * ms}

func rules(t *testing.T, to, from string) oracle.Policy {
	t.Helper()
	ps, _, err := parse.Parse("test", []byte(`[{"labels":[{"key":"name","value":"x"}],"endpointSelector":{"matchLabels":{"role":"`+to+`"}},
		"ingress":[{"fromEndpoints":[{"matchLabels":{"role":"`+from+`"}}]}]}]`))
	if err != nil {
		t.Fatal(err)
	}
	return oracle.Policy{Rules: ps[0].Rules}
}

func role(s string) model.Labels {
	return model.NewLabels(model.Label{Source: model.SourceK8s, Key: "role", Value: s})
}

// world: pod 1 is red, pod 2 blue; blue takes from red only in 1000..2000 ms, then from green only; pod 1 is green from
// 3000 ms on; pod 3 takes the place of pod 2 at 4000 ms, as white, of which no policy speaks; every change takes 10 ms.
func world(t *testing.T) []Change {
	at := func(n int) (time.Duration, time.Duration) {
		return time.Duration(n) * ms, time.Duration(n+10) * ms
	}
	var out []Change
	add := func(n int, c Change) {
		c.Begin, c.End = at(n)
		out = append(out, c)
	}
	add(100, Change{Kind: AddPod, Pod: 1, Labels: role("red"), Place: 1})
	add(100, Change{Kind: AddPod, Pod: 2, Labels: role("blue"), Place: 2})
	add(500, Change{Kind: PutPolicy, Name: "other", Policy: rules(t, "yellow", "yellow")}) // matters to nobody
	add(1000, Change{Kind: PutPolicy, Name: "p", Policy: rules(t, "blue", "red")})
	add(1500, Change{Kind: Kill, Name: "node1"})
	add(2000, Change{Kind: PutPolicy, Name: "p", Policy: rules(t, "blue", "green")})
	add(2500, Change{Kind: Kill, Name: "node1"})
	add(3000, Change{Kind: Relabel, Pod: 1, Labels: role("green")})
	add(4000, Change{Kind: DeletePod, Pod: 2})
	add(4020, Change{Kind: AddPod, Pod: 3, Labels: role("white"), Place: 2})
	return out
}

func TestCheck(t *testing.T) {
	j := NewJudge(cfg, world(t))
	heard := func(sent, heard, answered int) Probe {
		return Probe{From: 1, To: 2, By: 2, Sent: time.Duration(sent) * ms, Heard: time.Duration(heard) * ms, Answered: time.Duration(answered) * ms}
	}
	by := func(p Probe, pod int) Probe { p.By = pod; return p }
	to := func(p Probe, pod int) Probe { p.To = pod; return p }
	for _, x := range []struct {
		what string
		p    Probe
		want string // part of it; "" is legal
	}{
		{"no policy", heard(300, 301, 302), ""},
		{"refused without a policy", heard(300, 0, 0), "refused while"},
		{"refused while the pod is attached", heard(105, 0, 0), ""},
		{"refused soon after", heard(155, 0, 0), ""},
		{"refused long after", heard(180, 0, 0), "refused while"},
		{"heard before it was there", heard(80, 90, 0), "against the sender's"},
		{"allowed", heard(1500, 1501, 1502), ""},
		{"refused", heard(1500, 0, 0), "refused while"},
		{"no echo", heard(1500, 1501, 0), "echo was refused"},
		{"in the window of the change", heard(2005, 2006, 2007), ""},
		{"refused in it", heard(2005, 0, 0), ""},
		{"sent just before it", heard(1995, 0, 0), ""},
		{"echo just after the old policy", heard(2005, 2006, 2012), ""},
		{"echo long after it", heard(2005, 2011, 2013), "against the receiver's"},
		{"echo of before, after it", heard(2005, 2009, 2300), ""}, // begun in time: it may have been slow
		{"after the old policy", heard(2011, 2012, 0), "against the receiver's"},
		{"refused after it", heard(2011, 0, 0), ""},
		{"new label, in its window", heard(3001, 3002, 3003), ""},
		{"new label, before it", heard(2900, 2950, 0), "against the receiver's"},
		{"refused long after the new label", heard(3100, 0, 0), "refused while"},
		{"the pod goes", heard(4005, 0, 0), ""},
		{"heard by the one before", by(to(heard(4005, 4006, 0), 3), 2), ""},
		{"heard by the one before, too late", by(to(heard(4050, 4051, 0), 3), 2), "against the receiver's"},
		{"heard by the next", by(heard(4025, 4026, 4027), 3), ""},
		{"heard by somebody else", by(heard(300, 301, 302), 1), "another address"},
		{"echo of nothing", heard(300, 0, 302), "nobody heard"},
	} {
		if got := j.Check(x.p); (got == "") != (x.want == "") || !strings.Contains(got, x.want) {
			t.Errorf("%s: %q, want %q (%v)", x.what, got, x.want, x.p)
		}
	}
}

// Two policies or label sets of which each would refuse do not allow together, though both may be in force meanwhile.
func TestNeverTheUnion(t *testing.T) {
	changes := []Change{
		{Kind: AddPod, Pod: 1, Labels: role("red"), Place: 1, End: ms},
		{Kind: AddPod, Pod: 2, Labels: role("blue"), Place: 2, End: ms},
		// Blue takes from red and red from blue, one after the other: red never both as sender and as receiver.
		{Kind: PutPolicy, Name: "a", Policy: rules(t, "blue", "green"), Begin: 2 * ms, End: 3 * ms},
		{Kind: PutPolicy, Name: "b", Policy: rules(t, "green", "red"), Begin: 4 * ms, End: 5 * ms},
		// While pod 2 turns green it takes from green (as blue) or from red (as green); pod 1 is red: only as green.
		{Kind: Relabel, Pod: 2, Labels: role("green"), Begin: 100 * ms, End: 200 * ms},
		{Kind: Relabel, Pod: 1, Labels: role("white"), Begin: 300 * ms, End: 400 * ms},
		{Kind: DropPolicy, Name: "b", Begin: 350 * ms, End: 360 * ms},
		{Kind: PutPolicy, Name: "b", Policy: rules(t, "green", "black"), Begin: 370 * ms, End: 380 * ms},
	}
	j := NewJudge(cfg, changes)
	for at, legal := range map[time.Duration]bool{50 * ms: false, 99 * ms: false, 150 * ms: true, 250 * ms: true, 345 * ms: true, 355 * ms: true, 375 * ms: true, 385 * ms: false, 450 * ms: false} {
		p := Probe{From: 1, To: 2, By: 2, Sent: at, Heard: at}
		if why := j.Check(p); (why == "") != legal && !strings.Contains(why, "echo") {
			t.Errorf("heard at %s: %q, want legal %t", at, why, legal)
		}
	}
}

func TestMinimal(t *testing.T) {
	p := Probe{From: 1, To: 2, By: 2, Sent: 2500 * ms, Heard: 2501 * ms}
	got := Minimal(cfg, world(t), p)
	var kinds []Kind
	for _, c := range got {
		kinds = append(kinds, c.Kind)
	}
	// The policy that was replaced goes, and all that came later.
	if want := []Kind{AddPod, AddPod, PutPolicy}; !slices.Equal(kinds, want) {
		t.Errorf("left: %v, want %v\n%s", kinds, want, Explain(cfg, world(t), p))
	}
	if during := meanwhile(cfg, world(t), p); len(during) != 1 || during[0].Kind != Kill {
		t.Errorf("meanwhile: %v", during)
	}
	if Minimal(cfg, world(t), Probe{From: 1, To: 2, By: 2, Sent: 300 * ms, Heard: 301 * ms, Answered: 302 * ms}) != nil {
		t.Error("a counterexample of a legal probe")
	}
}
