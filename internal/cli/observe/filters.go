package observe

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	flowpb "github.com/hypha-net/hypha/api/flow"
	"github.com/hypha-net/hypha/internal/observe/filter"
)

type ff = flowpb.FlowFilter

// side says which ends of a flow a flag is about.
type side int

const (
	either side = iota
	from
	to
)

// filters collects the filter flags in the order they are given. What is about either end needs two filters, one for
// each way round; values of one flag are alternatives, different flags must all match. Negated flags make filters of
// their own, one (or two) for each flag.
type filters struct {
	not    bool // the next flag is negated
	allNS  bool
	allow  group
	deny   map[string]*group
	order  []string // of deny
	denied []*ff    // --denylist
	listed []*ff    // --allowlist
}

// group is a filter for each way round, and the names that still wait for their namespace.
type group struct {
	left, right                ff
	used, sided                bool
	namespaces, pods, services [3][]string // by side
}

func newFilters() *filters { return &filters{deny: map[string]*group{}} }

// group is where a flag's value goes; it consumes a --not.
func (s *filters) group(flag string) *group {
	if !s.not {
		return &s.allow
	}
	s.not = false
	g, ok := s.deny[flag]
	if !ok {
		g = &group{}
		s.deny[flag] = g
		s.order = append(s.order, flag)
	}
	return g
}

// merge adds a filter's values to both ways round, or source and destination of a sided pair.
func (g *group) merge(left, right *ff) {
	g.used = true
	g.sided = g.sided || left != right
	proto.Merge(&g.left, left)
	proto.Merge(&g.right, right)
}

// value is a filter flag.
type value struct {
	set  func(string) error
	text []string
	kind string
}

func (v *value) Set(s string) error {
	if err := v.set(s); err != nil {
		return err
	}
	v.text = append(v.text, s)
	return nil
}

func (v *value) String() string { return strings.Join(v.text, ",") }
func (v *value) Type() string   { return v.kind }

// plain declares a flag whose values go into both ways round alike.
func (s *filters) plain(f *pflag.FlagSet, name, short, kind, help string, parse func(string) (*ff, error)) *pflag.Flag {
	return f.VarPF(&value{kind: kind, set: func(v string) error {
		one, err := parse(v)
		if err != nil {
			return err
		}
		if _, err := filter.CompileOne(one); err != nil {
			return err
		}
		s.group(name).merge(one, one)
		return nil
	}}, name, short, help)
}

// twin declares a flag and its --from- and --to- twins.
func (s *filters) twin(f *pflag.FlagSet, name, short, kind, help string, parse func(string) (src, dst *ff, err error)) {
	for _, t := range []struct {
		prefix, short, what string
		side                side
	}{{"", short, "either end: ", either}, {"from-", "", "source: ", from}, {"to-", "", "destination: ", to}} {
		f.VarP(&value{kind: kind, set: func(v string) error {
			src, dst, err := parse(v)
			if err != nil {
				return err
			}
			if _, err := filter.CompileOne(src); err != nil {
				return err
			}
			g := s.group(t.prefix + name)
			switch t.side {
			case either:
				g.merge(src, dst)
			case from:
				g.merge(src, src)
			case to:
				g.merge(dst, dst)
			}
			return nil
		}}, t.prefix+name, t.short, t.what+help)
	}
}

// named declares a flag (and twins) whose values are completed with the namespace in the end.
func (s *filters) named(f *pflag.FlagSet, name, short, kind, help string, list func(*group) *[3][]string) {
	for _, t := range []struct {
		prefix, short, what string
		side                side
	}{{"", short, "either end: ", either}, {"from-", "", "source: ", from}, {"to-", "", "destination: ", to}} {
		f.VarP(&value{kind: kind, set: func(v string) error {
			if err := checkName(v, name == "namespace"); err != nil {
				return err
			}
			g := s.group(t.prefix + name)
			g.used = true
			l := list(g)
			l[t.side] = append(l[t.side], v)
			return nil
		}}, t.prefix+name, t.short, t.what+help)
	}
}

func checkName(v string, namespace bool) error {
	switch {
	case v == "":
		return usagef("want a name")
	case namespace && strings.Contains(v, "/"):
		return usagef("want a namespace, without a slash")
	case strings.Count(v, "/") > 1:
		return usagef("want [NAMESPACE/]NAME")
	}
	return nil
}

// build makes the lists of a request.
func (s *filters) build() (allow, deny []*ff, err error) {
	if s.not {
		return nil, nil, usagef("--not negates the filter after it, but none follows")
	}
	if allow, err = s.allow.build(s.allNS); err != nil {
		return nil, nil, err
	}
	for _, name := range s.order {
		d, err := s.deny[name].build(s.allNS)
		if err != nil {
			return nil, nil, err
		}
		deny = append(deny, d...)
	}
	return append(allow, s.listed...), append(deny, s.denied...), nil
}

func (g *group) build(all bool) ([]*ff, error) {
	if !g.used {
		return nil, nil
	}
	for _, sd := range []side{either, from, to} {
		pods, err := qualify(g.namespaces[sd], g.pods[sd], all)
		if err != nil {
			return nil, err
		}
		services, err := qualify(g.namespaces[sd], g.services[sd], all)
		if err != nil {
			return nil, err
		}
		if len(pods)+len(services) == 0 {
			for _, ns := range g.namespaces[sd] {
				pods = append(pods, ns+"/")
			}
		}
		if len(pods)+len(services) == 0 {
			continue
		}
		src := &ff{SourcePod: pods, SourceService: services}
		dst := &ff{DestinationPod: pods, DestinationService: services}
		switch sd {
		case either:
			g.merge(src, dst)
		case from:
			g.merge(src, src)
		case to:
			g.merge(dst, dst)
		}
	}
	if !g.sided || proto.Equal(&g.left, &g.right) {
		return []*ff{proto.CloneOf(&g.left)}, nil
	}
	return []*ff{proto.CloneOf(&g.left), proto.CloneOf(&g.right)}, nil
}

// qualify puts the namespaces before the names that have none.
func qualify(namespaces, names []string, all bool) ([]string, error) {
	if all && len(namespaces) > 0 {
		return nil, usagef("--all-namespaces and --namespace exclude each other")
	}
	var out []string
	for _, n := range names {
		ns, _, has := strings.Cut(n, "/")
		switch {
		case has && len(namespaces) > 0 && !slices.Contains(namespaces, ns):
			return nil, usagef("%q is not in namespace %s", n, strings.Join(namespaces, ", "))
		case has:
			out = append(out, n)
		case all:
			out = append(out, "/"+n)
		case len(namespaces) > 0:
			for _, ns := range namespaces {
				out = append(out, ns+"/"+n)
			}
		default:
			out = append(out, n)
		}
	}
	return out, nil
}

// raw declares --allowlist and --denylist.
func (s *filters) raw(f *pflag.FlagSet) {
	for _, l := range []struct {
		name, help string
		list       *[]*ff
	}{{"allowlist", "take flows that this filter matches, a FlowFilter in JSON", &s.listed},
		{"denylist", "leave out flows that this filter matches, a FlowFilter in JSON", &s.denied}} {
		f.Var(&value{kind: "json", set: func(v string) error {
			d := &ff{}
			if err := protojson.Unmarshal([]byte(v), d); err != nil {
				return err
			}
			if _, err := filter.CompileOne(d); err != nil {
				return err
			}
			*l.list = append(*l.list, d)
			return nil
		}}, l.name, l.help)
	}
}
