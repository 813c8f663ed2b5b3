package policy

import (
	"fmt"

	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/model"
)

// Unread is a policy that can select workloads of one namespace only. It is read while there are any: a node has workloads of few
// namespaces of a large cluster.
type Unread struct {
	Key, Namespace string
	Revision       uint64 // of its PolicyRef
	Raw            []byte // as parse.Read takes it
}

func (u *Unread) read() (parse.Policy, error) {
	p, err := parse.Read(u.Raw)
	if err != nil {
		return p, fmt.Errorf("stored policy %s cannot be read, delete it or upgrade this agent: %w", u.Key, err)
	}
	p.Ref.Revision = u.Revision
	return p, nil
}

// addHomes notes the namespaces of a workload.
func addHomes(homes map[string]bool, ls model.Labels) {
	for _, l := range ls {
		if l.Source == model.SourceK8s && l.Key == model.KeyNamespace {
			homes[l.Value] = true
		}
	}
}

// homesAfter are the namespaces of the workloads that are here once a batch is taken in.
func (e *Engine) homesAfter(c Changes) map[string]bool {
	here := make(map[uint16]model.Labels, len(e.local))
	who := make(map[uint16]model.IdentityID, len(e.local))
	for n, s := range e.local {
		here[n], who[n] = s.labels, s.Identity
	}
	for _, n := range c.DeleteSubjects {
		delete(here, n)
		delete(who, n)
	}
	for _, s := range c.Subjects {
		here[s.Endpoint], who[s.Endpoint] = nil, s.Identity
		if id := e.index.all[model.Peer{Identity: s.Identity}]; id != nil {
			here[s.Endpoint] = id.labels
		}
	}
	fresh := make(map[model.IdentityID]model.Labels, len(c.Identities))
	for _, id := range c.Identities {
		fresh[id.ID] = id.Labels
	}
	homes := map[string]bool{}
	for n, ls := range here {
		if now, ok := fresh[who[n]]; ok {
			ls = now
		}
		addHomes(homes, ls)
	}
	return homes
}

// wake reads the unread policies that are wanted from now on: those of the batch, and older ones whose namespace has workloads now.
func (e *Engine) wake(c Changes, b *batch) error {
	read := func(u Unread) error {
		p, err := u.read()
		b.read, b.from[u.Key] = append(b.read, p), u
		return err
	}
	for _, u := range c.Unread {
		if b.homes[u.Namespace] {
			if err := read(u); err != nil {
				return err
			}
		}
	}
	if subset(b.homes, e.homes) {
		return nil
	}
	told := map[string]bool{}
	for _, k := range c.DeletePolicies {
		told[k] = true
	}
	for i := range c.Policies {
		told[c.Policies[i].Key] = true
	}
	for i := range c.Unread {
		told[c.Unread[i].Key] = true
	}
	for k, u := range e.unread {
		if b.homes[u.Namespace] && !told[k] {
			if err := read(u); err != nil {
				return err
			}
		}
	}
	return nil
}

func subset(a, b map[string]bool) bool {
	for k := range a {
		if !b[k] {
			return false
		}
	}
	return true
}

// sleep puts away what nobody is under any more: policies of the batch that nobody here needs, and those of namespaces whose last workload
// has gone.
func (e *Engine) sleep(c Changes, b *batch, drop func(key string)) {
	for _, u := range c.Unread {
		if !b.homes[u.Namespace] {
			drop(u.Key)
			e.unread[u.Key] = u
		}
	}
	if !subset(e.homes, b.homes) {
		for k, p := range e.policies {
			if p.from != nil && !b.homes[p.from.Namespace] {
				drop(k)
				e.unread[k] = *p.from
			}
		}
	}
	e.homes = b.homes
}

// reading runs fn with the policies read that these workloads, which need not be here, are under.
func (e *Engine) reading(fn func(), workloads ...model.Labels) error {
	homes := map[string]bool{}
	for _, ls := range workloads {
		addHomes(homes, ls)
	}
	if !subset(homes, e.homes) {
		cc := compiler{groups: e.groups, ids: e.ids}
		for _, u := range e.unread {
			if !homes[u.Namespace] {
				continue
			}
			p, err := u.read()
			if err != nil {
				return err
			}
			cp, err := cc.compile(p)
			if err != nil {
				return err
			}
			for _, r := range cp.rules {
				e.subjects.add(r.subject, r)
			}
			defer func() {
				for _, r := range cp.rules {
					e.subjects.remove(r.subject, r)
				}
				e.releasePolicy(cp)
			}()
		}
	}
	fn()
	return nil
}
