package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/hypha-net/hypha/test/bench/arm"
	"github.com/hypha-net/hypha/test/bench/load"
	"github.com/hypha-net/hypha/test/bench/stat"
)

// Row 4: the connect call to the first, the middle and the last of n services.

// goals are what a client connects to, in the order of load.Connects.To.
var goals = []string{"straight", "first", "middle", "last"}

// A connectRound is what all arms showed once.
type connectRound struct {
	drift float64 // of the base
	got   map[string]load.Connects
}

// connectReport is what all arms showed with so many services.
type connectReport struct {
	services int
	stat.Quality
	rounds []connectRound
}

// connects measures all sites, interleaved: ABC, CBA, ..., the base at both ends of each round.
func connects(ctx context.Context, o options, n int, all []site) (connectReport, error) {
	end := time.Now().Add(o.patience)
	var rounds []connectRound
	for good := 0; good < o.rounds && (len(rounds) < o.rounds || len(rounds) < 2*o.rounds && time.Now().Before(end)); {
		r, err := connectOnce(ctx, o, n, all, len(rounds)%2 == 1)
		if err != nil {
			return connectReport{}, err
		}
		if r.drift <= o.drift {
			good++
		}
		rounds = append(rounds, r)
	}
	kept, q := stat.Calmest(rounds, func(r connectRound) float64 { return r.drift }, o.drift, o.rounds)
	return connectReport{services: n, Quality: q, rounds: kept}, nil
}

func connectOnce(ctx context.Context, o options, n int, all []site, backwards bool) (r connectRound, err error) {
	order := slices.Clone(all[1:])
	if backwards {
		slices.Reverse(order)
	}
	r.got = map[string]load.Connects{}
	first, err := connectOn(ctx, o, n, all[0])
	if err != nil {
		return r, err
	}
	for _, s := range order {
		if r.got[s.Name()], err = connectOn(ctx, o, n, s); err != nil {
			return r, err
		}
	}
	last, err := connectOn(ctx, o, n, all[0])
	if err != nil {
		return r, err
	}
	a, b := &first.To[0], last.To[0]
	r.drift = math.Abs(float64(b.P50)/float64(a.P50) - 1)
	a.P50, a.P99, first.CPU = (a.P50+b.P50)/2, (a.P99+b.P99)/2, (first.CPU+last.CPU)/2
	r.got[all[0].Name()] = first
	return r, nil
}

// connectOn measures one site.
func connectOn(ctx context.Context, o options, n int, s site) (c load.Connects, err error) {
	ctx, cancel := context.WithTimeout(ctx, o.duration+time.Minute)
	defer cancel()
	to := []netip.AddrPort{netip.AddrPortFrom(s.server(), port)}
	if s.Name() != baseName {
		for _, i := range marks(n) {
			to = append(to, place(arm.NewService(i)))
		}
	}
	var out, said strings.Builder
	cmd, err := child(ctx, s, load.ConnectArgs(s.ends().Server.Name(), serverPorts, to, o.duration), []int{0}, func(cmd *exec.Cmd) error {
		cmd.Stdout, cmd.Stderr = &out, &said
		return nil
	})
	if err == nil {
		err = cmd.Wait()
	}
	if err == nil {
		err = json.Unmarshal([]byte(out.String()), &c)
	}
	if err != nil {
		return c, fmt.Errorf("connect on %s, %d services: %w: %s", s.Name(), n, err, strings.TrimSpace(said.String()))
	}
	return c, nil
}

// added is how much longer a connect to a goal takes than straight to the server by the same path without services: on the
// kube-proxy arms, where what goes straight passes the rules too, straight by the base. The medians of the differences in the same
// round of p50 and of p99, in us, with the least and the greatest of the former.
func (r connectReport) added(name, goal string) (p50, least, most, p99 float64) {
	g := slices.Index(goals, goal)
	var half, most99 []float64
	for _, x := range r.rounds {
		c := x.got[name]
		to, from := c.To[g], c.To[0]
		d := to.Added
		if rival(name) {
			from = x.got[baseName].To[0]
			d = to.P50 - from.P50
		}
		half = append(half, micro(d))
		most99 = append(most99, micro(to.P99-from.P99))
	}
	return stat.Median(half), slices.Min(half), slices.Max(half), stat.Median(most99)
}

// of is the median over the rounds of something about a goal.
func (r connectReport) of(name, goal string, what func(load.Connect) time.Duration) float64 {
	g := slices.Index(goals, goal)
	return stat.MedianOf(r.rounds, func(x connectRound) float64 { return micro(what(x.got[name].To[g])) })
}

func p50(c load.Connect) time.Duration { return c.P50 }
func p99(c load.Connect) time.Duration { return c.P99 }

// cpu is the median over the rounds of a connection's CPU time, in us.
func (r connectReport) cpu(name string) float64 {
	return stat.MedianOf(r.rounds, func(x connectRound) float64 { return micro(x.got[name].CPU) })
}

func micro(d time.Duration) float64 { return float64(d) / 1e3 }

// rivals are the arms of kube-proxy's shapes.
var rivals = []string{byIPTables, byNFTables}

func rival(name string) bool { return slices.Contains(rivals, name) }

func say(format string, args ...any) { _, _ = fmt.Fprintf(os.Stderr, format+"\n", args...) }
