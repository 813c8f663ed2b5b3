// Package history says whether what probes saw during a run of changes was legal. A change has a window, from its begin until it
// was acknowledged by every node; within it, either what was before or what comes after may be in force, never a mixture. A
// probe has a window too: a datagram that passed must have been allowed at some moment of it, on each side by one policy, one
// label set of its own and one of the peer; one that was refused must have been refusable.
//
// Nothing here touches a kernel: the history may be a real one or invented.
package history

import (
	"fmt"
	"time"

	"github.com/hypha-net/hypha/internal/control/policy/oracle"
	"github.com/hypha-net/hypha/internal/model"
)

// Kind of a change.
type Kind uint8

// Kinds of changes.
const (
	PutPolicy  Kind = iota // Name, Policy; replaces one of the same name at once
	DropPolicy             // Name
	AddPod                 // Pod, Labels, Place
	Relabel                // Pod, Labels
	DeletePod              // Pod
	Kill                   // Name of the node; changes nothing
)

// Change is one thing that was done. Times count from the begin of the run.
type Change struct {
	Kind   Kind
	Begin  time.Duration // nothing of it is in force before
	End    time.Duration // all of it is in force, everywhere, from here on
	Name   string
	Policy oracle.Policy
	Pod    int // this very pod; one that is made anew has another number
	Labels model.Labels
	Place  int // whoever has the same place has the same addresses
	Text   string
}

// String is the change for people.
func (c Change) String() string {
	return fmt.Sprintf("%12s .. %-12s %s", c.Begin.Round(time.Microsecond), c.End.Round(time.Microsecond), c.Text)
}

// Probe is a datagram from one pod to the addresses of another, and its echo. A time of 0 means never.
type Probe struct {
	From, To int // pods
	V6       bool
	Fresh    bool // from a port that has sent little yet, so that no connection stands
	Sent     time.Duration
	Heard    time.Duration // it arrived
	By       int           // at this pod
	Answered time.Duration // its echo arrived
}

// String is the probe for people.
func (p Probe) String() string {
	at := func(d time.Duration) string {
		if d == 0 {
			return "never"
		}
		return d.Round(time.Microsecond).String()
	}
	return fmt.Sprintf("pod %d to pod %d, IPv6 %t, new port %t: sent %s, heard %s by %d, answered %s",
		p.From, p.To, p.V6, p.Fresh, at(p.Sent), at(p.Heard), p.By, at(p.Answered))
}

// Config of a judge.
type Config struct {
	Wait  time.Duration // a datagram is under way no longer than this
	Bound time.Duration // what has become allowed must pass after this at the latest
}
