package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hypha-net/hypha/deploy/demo"
	"github.com/hypha-net/hypha/internal/lab"
)

// upTimeout bounds Up; it takes a few seconds.
const upTimeout = time.Minute

// Up makes the demo, or mends the one that is there, and tells the story. It changes nothing on one that is whole.
func (d *Demo) Up(ctx context.Context) error {
	begin := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, upTimeout, fmt.Errorf("not up within %s", upTimeout))
	defer cancel()
	if err := d.refuse(); err != nil {
		return err
	}
	unlock, err := d.lock(true)
	if err != nil {
		return err
	}
	defer unlock()
	if err := d.openState(); err != nil {
		return err
	}
	if err := d.mountBPF(); err != nil {
		return err
	}
	if err := d.wire(); err != nil {
		return err
	}
	if err := errors.Join(replaceFile(d.policyFile(), demo.Policy), d.outside()); err != nil {
		return err
	}
	if err := d.agents(ctx); err != nil {
		return err
	}
	wanted := d.pods()
	for _, p := range story {
		if !slices.ContainsFunc(wanted, func(q pod) bool { return q.Name == p.Name }) {
			wanted = append(wanted, p)
		}
	}
	if err := each(ctx, wanted, d.ensurePod); err != nil {
		return err
	}
	if err := d.writeHosts(); err != nil {
		return err
	}
	if err := d.policy(ctx); err != nil {
		return err
	}
	if err := d.service(ctx); err != nil {
		return err
	}
	return d.tell(ctx, begin)
}

// openState reads the state of the demo that is there, or begins a new one.
func (d *Demo) openState() (err error) {
	d.state, err = d.load()
	switch {
	case errors.Is(err, errNone):
		if err := d.conflict(); err != nil {
			return err
		}
		d.state = newState()
		return d.update(func(*state) {})
	case err != nil:
		return err
	}
	fresh, err := d.freshBoot()
	if fresh {
		d.say("the machine was restarted since: making the demo anew")
	}
	return err
}

// mountBPF mounts bpffs if it is not there and remembers that.
func (d *Demo) mountBPF() error {
	mounted, err := lab.MountBPF()
	if err != nil || !mounted {
		return err
	}
	return d.update(func(s *state) { s.MountedBPF = true })
}

// writeHosts writes the names that `exec` shows to its command.
func (d *Demo) writeHosts() error {
	var b strings.Builder
	if own, err := os.ReadFile("/etc/hosts"); err == nil {
		b.Write(own)
		b.WriteString("\n# pods, service, nodes and outside of hypha demo\n")
	}
	add := func(addr, name string) { fmt.Fprintf(&b, "%s\t%s\n", addr, name) }
	for _, p := range d.pods() {
		for _, a := range p.Addrs {
			add(a.String(), p.Name)
		}
	}
	for _, n := range nodes {
		add(n.ip4, n.name)
		add(n.ip6, n.name)
	}
	add(serviceIP, serviceName)
	add(outside4, worldName)
	add(outside6, worldName)
	return replaceFile(d.hostsFile(), []byte(b.String()))
}

func (d *Demo) say(format string, args ...any) { _, _ = fmt.Fprintf(d.out, format+"\n", args...) }
