package policy_test

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	diff "github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/model"
)

// TestScripts runs testdata/*.txtar. The files of a script are taken in order:
//
//	identities      <number> <label>... [port=<name>/<protocol number>/<port>]...
//	endpoints       <number> <identity> [audit] [port=...]
//	addresses       <address> [<identity>]..., nobody lives there without one
//	policy*         a file for parse.Parse (.yaml or .json)
//	delete          policy <key> | identity <number> | endpoint <number> | group <name>
//	config          mode=always, localhost=policy, audit, nodes, cluster=..., ipv4, ipv6
//	networkpolicy*  the same, but CIDRs are blocks, as those of a NetworkPolicy of Kubernetes are
//	trace*          <from> <to> <protocol number> <port>; an end is identity number, ep<number> or labels joined by ",", each with
//	                @<address> where it lives if that matters, or an address outside
//	want*           applies what came so far as one batch; then: the steps, and what the kernel holds (or the traces)
//
// UPDATE=1 writes what came out into the want files; read the difference before you believe it.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txtar"), func(t *testing.T) { runScript(t, f) })
	}
}

type script struct {
	t   *testing.T
	e   *policy.Engine
	k   *fakeKernel
	c   policy.Changes
	cfg policy.Config
	out strings.Builder
}

func runScript(t *testing.T, name string) {
	a, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	s := &script{t: t, k: newFakeKernel()}
	if s.e, err = policy.New(s.cfg, model.PolicyState{}); err != nil {
		t.Fatal(err)
	}
	for i, f := range a.Files {
		switch {
		case strings.HasPrefix(f.Name, "policy"), strings.HasPrefix(f.Name, "networkpolicy"):
			ps, gs, err := parse.Parse(f.Name, f.Data)
			if err != nil {
				t.Fatal(err)
			}
			for i := range ps {
				if strings.HasPrefix(f.Name, "network") {
					ps[i].Ref.Kind = model.KindNetworkPolicy
				}
			}
			s.c.Policies, s.c.CIDRGroups = append(s.c.Policies, ps...), append(s.c.CIDRGroups, gs...)
		case strings.HasPrefix(f.Name, "want"):
			got := s.commit()
			if os.Getenv("UPDATE") != "" {
				a.Files[i].Data = []byte(got)
			} else if d := diff.Diff(string(f.Data), got); d != "" {
				t.Errorf("%s: -want +got\n%s", f.Name, d)
			}
		default:
			for line := range strings.Lines(string(f.Data)) {
				if fields := strings.Fields(line); len(fields) > 0 && !strings.HasPrefix(line, "#") {
					s.line(strings.TrimRight(f.Name, "0123456789"), fields)
				}
			}
		}
	}
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(name, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *script) num(x string) uint64 {
	n, err := strconv.ParseUint(x, 10, 32)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *script) ports(fields []string) (ports []model.NamedPort, rest []string) {
	for _, f := range fields {
		p, ok := strings.CutPrefix(f, "port=")
		if !ok {
			rest = append(rest, f)
			continue
		}
		x := strings.Split(p, "/")
		ports = append(ports, model.NamedPort{Name: x[0], Proto: uint8(s.num(x[1])), Port: uint16(s.num(x[2]))})
	}
	return ports, rest
}

func (s *script) line(file string, f []string) {
	ports, f := s.ports(f)
	switch file {
	case "identities":
		ls, err := model.ParseLabels(f[1:], "k8s")
		if err != nil {
			s.t.Fatal(err)
		}
		s.c.Identities = append(s.c.Identities, policy.Identity{Identity: model.Identity{ID: model.IdentityID(s.num(f[0])), Labels: ls}, NamedPorts: ports})
	case "endpoints":
		s.c.Subjects = append(s.c.Subjects, policy.Subject{Endpoint: uint16(s.num(f[0])), Identity: model.IdentityID(s.num(f[1])),
			NamedPorts: ports, Audit: len(f) > 2})
	case "addresses":
		if s.c.Addresses == nil {
			s.c.Addresses = map[netip.Addr][]model.IdentityID{}
		}
		var ids []model.IdentityID
		for _, x := range f[1:] {
			ids = append(ids, model.IdentityID(s.num(x)))
		}
		s.c.Addresses[mustAddr(f[0])] = ids
	case "delete":
		switch f[0] {
		case "policy":
			s.c.DeletePolicies = append(s.c.DeletePolicies, f[1])
		case "identity":
			s.c.DeleteIdentities = append(s.c.DeleteIdentities, model.IdentityID(s.num(f[1])))
		case "group":
			s.c.DeleteCIDRGroups = append(s.c.DeleteCIDRGroups, f[1])
		case "endpoint":
			s.c.DeleteSubjects = append(s.c.DeleteSubjects, uint16(s.num(f[1])))
			delete(s.k.endpoints, uint16(s.num(f[1])))
		}
	case "config":
		for _, x := range f {
			key, value, _ := strings.Cut(x, "=")
			switch key {
			case "mode":
				s.cfg.Mode = policy.Mode(value)
			case "localhost":
				s.cfg.AllowLocalhost = policy.Localhost(value)
			case "audit":
				s.cfg.Audit = true
			case "nodes":
				s.cfg.CIDRMatchNodes = true
			case "cluster":
				s.cfg.Cluster = value
			case "ipv4":
				s.cfg.IPv4 = true
			case "ipv6":
				s.cfg.IPv6 = true
			default:
				s.t.Fatalf("config %q", x)
			}
		}
		s.c.Config = &s.cfg
	case "trace":
		s.apply()
		s.trace(f)
	default:
		s.t.Fatalf("file %q", file)
	}
}

func (s *script) apply() {
	if plan, err := s.e.Apply(s.c); err != nil {
		s.t.Fatal(err)
	} else {
		s.c = policy.Changes{}
		for i, st := range plan.Steps {
			fmt.Fprintf(&s.out, "step %d: %d lists, %d classes, %d prefixes, %d endpoints, epoch %t; deletes %d prefixes, %d classes, %d lists\n", i+1,
				len(st.Lists), len(st.Classes), len(st.Prefixes), len(st.EndpointSets), st.BumpEpoch, len(st.DeletePrefixes), len(st.DeleteClasses),
				len(st.DeleteLists))
		}
		s.k.apply(plan, rand.New(rand.NewPCG(1, 2)), nil)
	}
}

func (s *script) commit() string {
	traced := s.out.Len() > 0
	s.apply()
	if !traced {
		s.dump()
	}
	defer s.out.Reset()
	return s.out.String()
}

func (s *script) peer(x string) policy.Peer {
	if who, at, ok := strings.Cut(x, "@"); ok {
		p := s.peer(who)
		p.Addr = mustAddr(at)
		return p
	}
	if n, err := strconv.ParseUint(x, 10, 32); err == nil {
		return policy.Peer{Identity: model.IdentityID(n)}
	}
	if ep, ok := strings.CutPrefix(x, "ep"); ok {
		return policy.Peer{Endpoint: uint16(s.num(ep))}
	}
	if p := mustAddr(x); p.IsValid() {
		return policy.Peer{Addr: p}
	}
	ls, err := model.ParseLabels(strings.Split(x, ","), "k8s")
	if err != nil {
		s.t.Fatal(err)
	}
	return policy.Peer{Labels: ls}
}

func (s *script) trace(f []string) {
	res, err := s.e.Trace(policy.Query{Source: s.peer(f[0]), Destination: s.peer(f[1]), Proto: uint8(s.num(f[2])), Port: uint16(s.num(f[3]))})
	if err != nil {
		s.t.Fatal(err)
	}
	fmt.Fprintf(&s.out, "%s: %s\n", strings.Join(f, " "), verdict(res.Verdict))
	for _, j := range []*policy.Judgement{res.Egress, res.Ingress} {
		if j != nil {
			fmt.Fprintf(&s.out, "\t%s by %s\n", verdict(j.Verdict), j.Rule.Text)
		}
	}
}

func verdict(v uint8) string {
	return map[uint8]string{0: "DENY", 1: "ALLOW", 0x80: "AUDIT"}[v]
}

// dump is what the kernel holds, the rules by their text.
func (s *script) dump() {
	for _, n := range slices.Sorted(maps.Keys(s.k.endpoints)) {
		fmt.Fprintf(&s.out, "endpoint %d: set %d\n", n, s.k.endpoints[n])
	}
	byClass := map[model.ClassID][]string{}
	for _, id := range slices.SortedFunc(maps.Keys(s.k.classes), model.ComparePeers) {
		byClass[s.k.classes[id]] = append(byClass[s.k.classes[id]], id.String())
	}
	for _, c := range slices.Sorted(maps.Keys(byClass)) {
		fmt.Fprintf(&s.out, "class %d: %s\n", c, strings.Join(byClass[c], " "))
	}
	var prefixes []string
	for p, id := range s.k.prefixes {
		prefixes = append(prefixes, fmt.Sprintf("prefix %s: %d\n", p, id))
	}
	for p, a := range s.k.areas {
		prefixes = append(prefixes, fmt.Sprintf("area %d: %s%s\n", a.ID, p, map[bool]string{true: " strict"}[a.Strict]))
	}
	slices.Sort(prefixes)
	s.out.WriteString(strings.Join(prefixes, ""))
	keys := slices.SortedFunc(maps.Keys(s.k.lists), func(a, b model.PolicyKey) int {
		return cmp.Or(cmp.Compare(a.Set, b.Set), cmp.Compare(a.Dir, b.Dir), cmp.Compare(a.Class, b.Class))
	})
	for _, key := range keys {
		l := s.k.lists[key]
		fmt.Fprintf(&s.out, "set %d %s class %d:\n", key.Set, key.Dir, key.Class)
		for _, en := range l.Entries {
			where := "any protocol"
			if en.Proto != 0 {
				where = fmt.Sprintf("%d/%d-%d", en.Proto, en.PortLo, en.PortHi)
			}
			fmt.Fprintf(&s.out, "\t%s %s, %s\n", where, verdict(en.Verdict), s.text(en.Rule))
		}
		fmt.Fprintf(&s.out, "\telse %s, %s\n", verdict(l.DefaultVerdict), s.text(l.DefaultRule))
	}
}

func (s *script) text(id model.RuleID) string {
	r, ok := s.e.Rule(id)
	if !ok || r.ID != id {
		s.t.Errorf("rule %d has no name", id)
	}
	return r.Text
}
