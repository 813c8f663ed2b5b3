package parse

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"sigs.k8s.io/yaml"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/testutil/mutate"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

// TestScripts runs testdata/*.txtar: each file "in.yaml" or "in.json" must give "want": the JSON of the policies and
// groups, or the error messages, one a line.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(f)
			if err != nil {
				t.Fatal(err)
			}
			in, want := a.Files[0], a.Files[1]
			got := outcome(in.Name, in.Data)
			if os.Getenv("UPDATE") != "" {
				a.Files[1].Data = []byte(got)
				if err := os.WriteFile(f, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(string(want.Data), got); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}

func outcome(name string, in []byte) string {
	policies, groups, err := Parse(name, in)
	if err != nil {
		if policies != nil || groups != nil {
			return "policies beside an error"
		}
		return err.Error() + "\n"
	}
	var b strings.Builder
	for _, p := range policies {
		j, err := json.MarshalIndent(p, "", "  ")
		if err != nil {
			return err.Error()
		}
		b.Write(append(j, '\n'))
	}
	for _, g := range groups {
		b.WriteString("group " + g.Name + " " + g.Labels.Key())
		for _, p := range g.CIDRs {
			b.WriteString(" " + p.String())
		}
		b.WriteString("\n")
	}
	return b.String()
}

const story = `[{"labels":[{"key":"name","value":"l3-rule"}],
      "endpointSelector":{"matchLabels":{"id":"app1"}},
      "ingress":[{"fromEndpoints":[{"matchLabels":{"id":"app2"}}],
                  "toPorts":[{"ports":[{"port":"80","protocol":"TCP"}]}]}]}]`

func TestStory(t *testing.T) {
	ps, _, err := Parse("l3.json", []byte(story))
	if err != nil {
		t.Fatal(err)
	}
	want := model.PolicyRef{Name: "l3-rule", Labels: model.NewLabels(model.Label{Source: "unspec", Key: "name", Value: "l3-rule"})}
	if d := cmp.Diff(want, ps[0].Ref); d != "" || len(ps) != 1 {
		t.Error(d)
	}
}

// Importing the same again must not add anything, whatever the order of keys and labels.
func TestRawKeyStable(t *testing.T) {
	key := func(s string) string {
		ps, _, err := Parse("x.json", []byte(s))
		if err != nil || len(ps) != 1 {
			t.Fatalf("%d policies, %v", len(ps), err)
		}
		return ps[0].Key
	}
	a := key(`{"labels":["a=1","b=2"],"endpointSelector":{"matchLabels":{"x":"1","y":"2"}},"ingress":[]}`)
	if b := key(`{"ingress":[],"endpointSelector":{"matchLabels":{"y":"2","x":"1"}},"labels":["b=2","a=1"]}`); a != b {
		t.Errorf("order matters: %s, %s", a, b)
	}
	if b := key(`{"labels":["a=1","b=2"],"endpointSelector":{"matchLabels":{"x":"1","y":"2"}},"ingress":[{}]}`); a == b {
		t.Error("content does not matter")
	}
	if b := key(`[{"labels":["a=1"],"endpointSelector":{},"ingress":[]},{"labels":["a=1"],"endpointSelector":{},"ingress":[]}]`); b == "" {
		t.Error("the same rule twice in a file is one")
	}
}

// An empty list is not an absent one, neither here nor in the store nor in YAML.
func TestCVE_2025_64715_EmptyIsNotAbsent(t *testing.T) {
	c := score.Start(t, "CVE-2025-64715", "an empty list does not become \"any\" on its way")
	c.Count(3, "forms")
	in := `{"endpointSelector":{},"ingress":[{"fromEndpoints":[],"toPorts":[{"ports":[{"port":"80"}]}]},{"fromCIDRSet":[]},{}],"egress":[]}`
	ps, _, err := Parse("x.json", []byte(in))
	if err != nil {
		t.Fatal(err)
	}
	check := func(how string, r v2.Rule) {
		t.Helper()
		if r.Ingress[0].FromEndpoints == nil || r.Ingress[0].FromCIDR != nil || r.Ingress[1].FromCIDRSet == nil || r.Egress == nil ||
			r.EgressDeny != nil || len(r.Ingress) != 3 || r.Ingress[2].FromEndpoints != nil {
			t.Errorf("%s: %+v", how, r)
		}
	}
	check("parsed", ps[0].Rules[0])
	b, err := json.Marshal(ps[0])
	if err != nil {
		t.Fatal(err)
	}
	var p Policy
	if err := json.Unmarshal(b, &p); err != nil {
		t.Fatal(err)
	}
	check("stored", p.Rules[0])
	if d := cmp.Diff(ps[0], p); d != "" {
		t.Error(d)
	}
	y, err := yaml.Marshal(ps[0].Rules[0])
	if err != nil {
		t.Fatal(err)
	}
	var r v2.Rule
	if err := yaml.UnmarshalStrict(y, &r); err != nil {
		t.Fatal(err)
	}
	check("yaml", r)
}

// A store written by a newer version must not be read as something weaker.
func TestStoredUnknownField(t *testing.T) {
	var p Policy
	err := json.Unmarshal([]byte(`{"key":"k","rules":[{"endpointSelector":{},"egress":[{"toFQDNs":[{"matchName":"x"}]}]}]}`), &p)
	if err == nil || !strings.Contains(err.Error(), "toFQDNs") {
		t.Errorf("got %v", err)
	}
}

// L7 sections are refused yet, and then nothing of the file is taken: a port range must not stay behind without its L7 part.
func TestCVE_2024_52529_L7InRangeIsRefusedWhole(t *testing.T) {
	c := score.Start(t, "CVE-2024-52529", "L7 inside a port range: refused as a whole")
	n := 0
	for _, port := range []string{`{"port":"80","protocol":"TCP"}`, `{"port":"80","endPort":444,"protocol":"TCP"}`, `{"port":"0","protocol":"TCP"}`, `{"port":"web"}`} {
		for _, l7 := range []string{`"rules":{"http":[{}]}`, `"rules":{"http":[]}`, `"rules":{}`, `"rules":{"kafka":[{"topic":"x"}]}`, `"rules":{"dns":[{"matchName":"x"}]}`,
			`"serverNames":["x"]`, `"terminatingTLS":{}`, `"listener":{}`} {
			doc := `[{"endpointSelector":{},"egress":[{"toPorts":[{"ports":[{"port":"1","endPort":65535}]}]}]},
				{"endpointSelector":{},"ingress":[{"toPorts":[{"ports":[` + port + `],` + l7 + `}]}]}]`
			field, _, _ := strings.Cut(l7[1:], `"`)
			ps, gs, err := Parse("l7.json", []byte(doc))
			if ps != nil || gs != nil || err == nil || !strings.Contains(err.Error(), "[1].ingress[0].toPorts[0]."+field+": known, but not supported yet") {
				t.Errorf("%s %s: %d policies, %v", port, l7, len(ps), err)
			}
			n++
		}
	}
	c.Count(n, "documents")
}

// TestCase34HostilePolicy: nothing that is cheap to write is dear to read.
func TestCase34HostilePolicy(t *testing.T) {
	c := score.Start(t, "34", "policies made to be slow: alias bombs, nesting, huge lists")
	cost := mutate.Cost{}
	bomb := "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
	for i := 1; i < 20; i++ {
		p, n := string(rune('a'+i-1))+"0", string(rune('a'+i))+"0"
		bomb += n + ": &" + n + " [" + strings.Repeat("*"+p+",", 9) + "*" + p + "]\n"
	}
	for name, in := range map[string]string{
		"alias bomb":      bomb,
		"alias cycle":     "a: &a [*a]\n",
		"deep json":       strings.Repeat("[", 1_000_000),
		"deep json maps":  strings.Repeat(`{"a":`, 500_000),
		"deep flow":       "x: " + strings.Repeat("[", 900_000),
		"deep flow maps":  "x: " + strings.Repeat("{a: ", 200_000),
		"deep sequences":  strings.Repeat("- ", 500_000),
		"question marks":  strings.Repeat("? ", 500_000),
		"colons":          strings.Repeat("a: ", 300_000),
		"comments":        strings.Repeat("#\n", 500_000),
		"comments in map": "a:\n" + strings.Repeat(" # x\n b", 140_000),
		"documents":       strings.Repeat("---\na: b\n", 110_000),
		"many keys":       manyKeys(100_000),
		"long key":        strings.Repeat("k", 1_000_000) + ": v",
		"indents":         indents(1400),
		"anchors":         strings.Repeat("- &a x\n", 170_000),
		"json list":       "[" + strings.Repeat("0,", 1_000_000) + "0]",
		"json errors":     "[" + strings.Repeat(`{"a":1},`, 100_000) + "0]",
		"quotes":          "a: \"" + strings.Repeat("\\x41", 250_000),
		"block scalar":    "a: |\n" + strings.Repeat(" \n", 500_000),
		"one letter":      strings.Repeat("-\n", 520_000),
		"flow items":      "[" + strings.Repeat("1,", 520_000) + "]",
		"yaml flow items": "a: [" + strings.Repeat("1,", 520_000) + "]",
		"dots":            "a: " + strings.Repeat("1.", 500_000),
		"tags":            strings.Repeat("!!a ", 250_000),
		"too large":       strings.Repeat(" ", MaxSize+1),
		"large JSON":      `[{"endpointSelector":{"matchLabels":{` + strings.Repeat(`"a":"b",`, 25_000) + `"c":"d"}}}]`,
		"expressions":     `[{"endpointSelector":{"matchExpressions":[` + strings.Repeat(`{"key":"a","operator":"In","values":["b"]},`, 40_000) + `{}]}}]`,
		"values":          `[{"endpointSelector":{"matchExpressions":[{"key":"a","operator":"In","values":[` + strings.Repeat(`"b",`, 200_000) + `1]}]}}]`,
		"exceptions":      `[{"endpointSelector":{},"ingress":[{"fromCIDRSet":[{"cidr":"10.0.0.0/8","except":[` + strings.Repeat(`"10.1.0.0/16",`, 100_000) + `"x"]}]}]}]`,
		"rules":           "[" + strings.Repeat(`{"endpointSelector":{},"ingress":[{}]},`, 30_000) + "0]",
		"ports":           `[{"endpointSelector":{},"ingress":[{"toPorts":[{"ports":[` + strings.Repeat(`{"port":"1"},`, 60_000) + `{}]}]}]}]`,
		"number":          `[{"endpointSelector":{},"ingress":[{"toPorts":[{"ports":[{"port":"1","endPort":` + strings.Repeat("9", 1_000_000) + `}]}]}]}]`,
		"anchors in keys": "a: &a b\n" + strings.Repeat("? *a\n: *a\n", 40_000),
	} {
		t.Run(name, func(t *testing.T) {
			cost.Tried++
			cost.Worst = max(cost.Worst, mutate.Once(t, in, func(in string) {
				if _, _, err := Parse("x", []byte(in)); err == nil {
					t.Error("no error")
				} else if len(err.Error()) > 200_000 {
					t.Errorf("an error of %d bytes", len(err.Error()))
				}
			}))
		})
	}
	c.Count(cost.Tried, "texts")
	c.Say("%v", cost)
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("k" + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + ": 1\n")
	}
	return b.String()
}

func indents(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}
