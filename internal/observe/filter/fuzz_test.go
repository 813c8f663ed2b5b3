package filter

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	flowpb "github.com/hypha-net/hypha/api/flow"
	"github.com/hypha-net/hypha/internal/testutil/mutate"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

// pair is a filter and a flow, as they come over the wire.
type pair struct{ filter, flow []byte }

// check feeds any filter and any flow: neither may crash, and a filter listed as allow and deny takes nothing.
func check(t testing.TB, p pair) {
	var flt ff
	var fl flowpb.Flow
	if proto.Unmarshal(p.filter, &flt) != nil || proto.Unmarshal(p.flow, &fl) != nil {
		return
	}
	s, err := Compile([]*ff{&flt}, nil)
	if err != nil {
		return
	}
	s.Match(&fl)
	deny, err := Compile(nil, []*ff{&flt})
	if err != nil {
		t.Fatalf("compiles as allow but not as deny: %v", err)
	}
	if both := (Set{allow: s.allow, deny: deny.deny}); both.Match(&fl) {
		t.Fatalf("%v both allowed and denied, yet taken", &flt)
	}
}

// wire is the corpus: the filters of the tests and the flows they are about.
func wire(t testing.TB) (filters, flows [][]byte) {
	for _, c := range fields {
		raw, err := proto.Marshal(c.flow)
		if err != nil {
			t.Fatal(err)
		}
		flows = append(flows, raw)
		for _, l := range [][]*ff{c.yes, c.no, c.malformed} {
			for _, v := range l {
				if fr, err := proto.Marshal(v); err == nil { // else not one that can come over the wire
					filters = append(filters, fr)
				}
			}
		}
	}
	return filters, flows
}

func FuzzFilter(f *testing.F) {
	filters, flows := wire(f)
	for i, fr := range filters {
		f.Add(fr, flows[i%len(flows)])
	}
	f.Fuzz(func(t *testing.T, filter, flow []byte) { check(t, pair{filter, flow}) })
}

// TestCase37Filters: no filter crashes, none costs a flow more than it may.
func TestCase37Filters(t *testing.T) {
	c := score.Start(t, "37", "fuzz flow filters")
	r := c.Rand()
	filters, flows := wire(t)
	cost := mutate.Each(t, score.Size(30_000, 10_000_000), 2*time.Minute, func() pair {
		p := pair{filters[r.IntN(len(filters))], flows[r.IntN(len(flows))]}
		if r.IntN(4) > 0 {
			p.filter = mutate.Text(r, filters)
		}
		if r.IntN(4) == 0 {
			p.flow = mutate.Text(r, flows)
		}
		return p
	}, func(p pair) { check(t, p) })
	c.Count(cost.Tried, "filters")
	c.Say("%v", cost)
}

// TestCase37ExpressionText: neither do the texts in filters that are languages of their own.
func TestCase37ExpressionText(t *testing.T) {
	c := score.Start(t, "37", "fuzz the languages in flow filters: CEL, label selectors, regular expressions, patterns")
	r := c.Rand()
	corpus := [][]byte{}
	for _, s := range []string{`_flow.verdict == Verdict.DROPPED && _flow.source.labels.exists(l, l.startsWith("k8s:a"))`, `_flow.Summary.matches("(a|b)+c{2,9}")`,
		`size(_flow.source.pod_name) > 3 ? true : _flow.l4.TCP.destination_port in [80, 443]`, `a=b, c in (d, e), !f, k8s:g != h, n > 5`, `^/api/(v[0-9]+)/.*$`,
		`*.example.org`, `cluster/node*`, `shop/app1`, `10.0.0.0/8`, `[[:alpha:]]{3,}(?i:x)\pL+`} {
		corpus = append(corpus, []byte(s))
	}
	cost := mutate.Each(t, score.Size(1_500, 10_000_000), 2*time.Minute, func() string { return string(mutate.Text(r, corpus)) }, func(s string) {
		for _, f := range textFilters(s) {
			if set, err := Compile([]*ff{f}, nil); err == nil {
				set.Match(long)
			}
		}
	})
	c.Count(cost.Tried, "texts")
	c.Say("%v", cost)
}

// textFilters use a text wherever a filter takes one that it parses.
func textFilters(s string) []*ff {
	l := []string{s}
	return []*ff{{Experimental: &flowpb.FlowFilter_Experimental{CelExpression: l}}, {SourceLabel: l}, {HttpUrl: l}, {HttpPath: l}, {DnsQuery: l},
		{SourceFqdn: l}, {NodeName: l}, {SourceIp: l}, {SourcePod: l}, {SourcePort: l}, {Protocol: l}, {HttpStatusCode: l}}
}

// long is a flow with as much text as a hostile workload can put into one.
var long = &flowpb.Flow{L7: &flowpb.Layer7{Record: &flowpb.Layer7_Http{Http: &flowpb.HTTP{Url: "/" + strings.Repeat("a", 4000)}}},
	Summary: strings.Repeat("a", 4000), NodeName: strings.Repeat("a", 250), SourceNames: []string{strings.Repeat("a.", 127)},
	Source: &flowpb.Endpoint{PodName: strings.Repeat("a", 250), Labels: strings.Split(strings.Repeat("k8s:a=a,", 100), ",")}}

// TestCase37CostlyFilters: what is short to write and long to work off is refused, or cut short.
func TestCase37CostlyFilters(t *testing.T) {
	c := score.Start(t, "37", "filters made to be slow")
	times := func(s string, n int) (l []string) {
		for range n {
			l = append(l, s)
		}
		return l
	}
	cel := func(s string, n int) *ff {
		return &ff{Experimental: &flowpb.FlowFilter_Experimental{CelExpression: times(s, n)}}
	}
	const all3 = `_flow.source.labels.all(x, _flow.source.labels.all(y, _flow.source.labels.all(z, x+y+z != "q")))`
	cost := mutate.Cost{}
	for name, list := range map[string][]*ff{
		"a long expression":        {{HttpUrl: []string{strings.Repeat("a?", 8192) + "b"}}},
		"repetitions":              {{HttpUrl: []string{strings.Repeat("(a?){1000}", 4) + "b"}}},
		"many repetitions":         {{HttpUrl: []string{strings.Repeat("(a?){1000}", 1000) + "b"}}},
		"repetitions that fit":     {{HttpUrl: []string{"(a?){500}b"}}},
		"many that fit":            {{HttpUrl: times("(a?){500}b", 1000)}},
		"many filters that fit":    {{HttpUrl: times("(a?){500}b", 1)}, {HttpPath: times("(a?){500}b", 1)}, {DnsQuery: times("(a?){500}b", 1)}},
		"patterns":                 {{SourceFqdn: times(strings.Repeat("*a", 500)+"b", 1000)}},
		"a long pattern":           {{SourceFqdn: []string{strings.Repeat("*a", 400_000) + "b"}}},
		"loops":                    {cel(all3, 1)},
		"many loops":               {cel(all3+" && false", celCount)},
		"too many loops":           {cel(all3, 1000)},
		"repetitions in CEL":       {cel(`_flow.Summary.matches("`+strings.Repeat("(a?){1000}", 4)+`b")`, 1)},
		"repetitions put together": {cel(`_flow.Summary.matches("(a?){1000}"+"(a?){1000}b")`, 1)},
		"repetitions in a loop":    {cel(`_flow.source.labels.all(x, !_flow.Summary.matches("(a?){40}b"))`, celCount)},
		"brackets":                 {cel(strings.Repeat("(", 4000)+"true"+strings.Repeat(")", 4000), 1)},
		"lists":                    {cel(strings.Repeat("[", 4000)+"1"+strings.Repeat("]", 4000)+"==[]", 1)},
		"not":                      {cel(strings.Repeat("!", 8000)+"true", 1)},
		"or":                       {cel(strings.Repeat("true||", 1300)+"true", 1)},
		"choices":                  {cel(strings.Repeat("true?", 1600)+"true", 1)},
		"fields":                   {cel("_flow"+strings.Repeat(".source", 1000), 1)},
		"macros":                   {cel(strings.Repeat("[1].all(x,", 600)+"true"+strings.Repeat(")", 600), 1)},
		"a long selector":          {{SourceLabel: []string{"a in (" + strings.Repeat("b,", 500_000) + "c)"}}},
		"many selectors":           {{SourceLabel: times(strings.Repeat("k8s:a!=b,", 20)+"c", MaxValues)}},
	} {
		took := mutate.Once(t, list, func(list []*ff) {
			s, err := Compile(list, nil)
			if err == nil {
				s.Match(long)
			} else if n := len(err.Error()); n > 10_000 {
				t.Errorf("%s: an error of %d bytes", name, n)
			}
		})
		if cost.Tried++; t.Failed() {
			t.Fatal(name)
		}
		cost.Worst = max(cost.Worst, took)
	}
	c.Count(cost.Tried, "filters")
	c.Say("%v", cost)
}

// TestGlob compares with the expression that a pattern stands for.
func TestGlob(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	text := func(letters string) string {
		var b strings.Builder
		for range r.IntN(8) {
			b.WriteByte(letters[r.IntN(len(letters))])
		}
		return b.String()
	}
	matched := 0
	for range 20_000 {
		pattern, s := text("ab*"), text("ab")
		m, err := glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		want := globExpression(pattern).MatchString(s)
		if m(s) != want {
			t.Fatalf("%q on %q: %v", pattern, s, !want)
		}
		if want {
			matched++
		}
	}
	if matched < 1000 {
		t.Errorf("%d matched", matched)
	}
}

func globExpression(pattern string) *regexp.Regexp {
	return regexp.MustCompile(`\A(?s:` + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, `.*`) + `)\z`)
}
