package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

// Attachment is a device that carries programs of this agent.
type Attachment struct {
	Role    Role
	IfIndex int
}

// Adopt replaces the programs of all attachments by the loaded ones and forgets those whose device is gone; those of sockets
// are attached or taken off as configured. It returns which devices have programs afterwards. Once it has succeeded no old program runs, and maps.Maps.Settle may follow.
func (l *Loader) Adopt() ([]Attachment, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all, err := l.list()
	if err != nil {
		return nil, err
	}
	var kept []Attachment
	for _, a := range all {
		if a.Role == Accelerated && !l.keepsFast(a.IfIndex) {
			a.Role = Prefilter // denied sources stay denied until it is decided what belongs there
		}
		if err := l.attach(a.Role, a.IfIndex); err != nil {
			return kept, err
		}
		kept = append(kept, a)
	}
	if err := l.attachSockets(); err != nil {
		return kept, err
	}
	l.forget()
	return kept, nil
}

// Prune takes the programs off devices that keep does not want, and forgets those whose device is gone. Workloads'
// devices keep theirs as long as they exist: see ErrInUse.
func (l *Loader) Prune(keep func(Attachment) bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	all, err := l.list()
	for _, a := range all {
		if a.Role != Pod && !keep(a) {
			err = errors.Join(err, l.detach(a.Role, a.IfIndex))
		}
	}
	return err
}

// list reads what is attached, and removes pins whose device is gone.
func (l *Loader) list() ([]Attachment, error) {
	seen := map[Attachment]bool{}
	var out []Attachment
	add := func(a Attachment) {
		if !seen[a] {
			seen[a] = true
			out = append(out, a)
		}
	}
	entries, err := os.ReadDir(l.cfg.Links)
	if err != nil {
		return nil, fmt.Errorf("list pinned links: %w", err)
	}
	for _, e := range entries {
		a, ok := parsePin(e.Name())
		if !ok {
			continue
		}
		pin := filepath.Join(l.cfg.Links, e.Name())
		if have, err := link.LoadPinnedLink(pin, nil); err == nil {
			on, running := linked(have, a.IfIndex)
			if a.Role == Prefilter && runsFast(running) {
				a.Role = Accelerated
			}
			if err := have.Close(); err != nil {
				return nil, err
			}
			if on == a.IfIndex {
				add(a)
				continue
			}
		}
		if err := errors.Join(removePin(pin), l.release(pin)); err != nil {
			return nil, err
		}
	}
	if l.tcx() {
		return out, nil
	}
	devs, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	for _, d := range devs {
		roles, err := filterRoles(d)
		if err != nil {
			return nil, err
		}
		for _, r := range roles {
			add(Attachment{r, d.Attrs().Index})
		}
	}
	return out, nil
}

// parsePin reads the name that Loader.pin made.
func parsePin(name string) (Attachment, bool) {
	for r := range programs {
		for _, h := range hooks {
			var i int
			if n, err := fmt.Sscanf(name, string(r)+"-%d-"+h.name, &i); err == nil && n == 1 && r.program(h) != "" {
				return Attachment{r, i}, true
			}
		}
	}
	return Attachment{}, false
}

// Unpin detaches everything pinned under a link directory and removes it; for cleanup, without a loader.
func Unpin(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list pinned links: %w", err)
	}
	var failed error
	for _, e := range entries {
		failed = errors.Join(failed, unpinLink(filepath.Join(dir, e.Name())))
	}
	return errors.Join(failed, os.Remove(dir))
}
