package observe

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	observerpb "github.com/hypha-net/hypha/api/observer"
	"github.com/hypha-net/hypha/internal/testutil/mutate"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

// printed prints a message in every format: nothing that comes out may be obeyed by a terminal, or crash the printer.
func printed(t testing.TB, raw []byte) {
	for _, format := range formats {
		var r observerpb.GetFlowsResponse
		if proto.Unmarshal(raw, &r) != nil {
			return
		}
		var out, errs bytes.Buffer
		p := &printer{printOptions: printOptions{output: format, timeFormat: "StampMilli", translate: true, node: true, policies: true}, out: &out, err: &errs}
		if p.response(&r) != nil || p.close() != nil {
			continue // refused, which is as good
		}
		for _, c := range out.String() + errs.String() {
			if c != '\n' && !unicode.IsPrint(c) {
				t.Fatalf("-o %s: %q in the output:\n%q", format, c, out.String())
			}
		}
	}
}

func corpus(t testing.TB) (out [][]byte) {
	for _, r := range samples() {
		raw, err := proto.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, raw)
	}
	return out
}

func FuzzPrint(f *testing.F) {
	for _, raw := range corpus(f) {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) { printed(t, raw) })
}

// evil are texts that terminals obey, or hide.
var evil = []string{"\x1b[2J", "\x1b]0;owned\x07", "\u009b31m", "\u202e", "\u200b", "\r", "\n\n", "\t", "\x00", "\x7f", "\u2028", "\U000e0041", "\\x1b[2J", "\u0085", "\ufeff"}

// poison puts such texts into the texts of a message.
func poison(r *rand.Rand, m protoreflect.Message) {
	text := func() protoreflect.Value {
		var b strings.Builder
		for range 1 + r.IntN(4) {
			b.WriteString("a" + evil[r.IntN(len(evil))])
		}
		return protoreflect.ValueOfString(b.String())
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsMap():
		case f.IsList():
			if l := m.Mutable(f).List(); f.Kind() == protoreflect.StringKind {
				l.Append(text())
			} else if f.Message() != nil {
				for i := range l.Len() {
					poison(r, l.Get(i).Message())
				}
			}
		case f.Kind() == protoreflect.StringKind && (f.ContainingOneof() == nil || m.Has(f)):
			if r.IntN(2) == 0 {
				m.Set(f, text())
			}
		case f.Message() != nil && m.Has(f):
			poison(r, m.Get(f).Message())
		}
	}
}

// TestCase37Output: whatever a flow says, no format lets a terminal act upon it.
func TestCase37Output(t *testing.T) {
	c := score.Start(t, "37", "flows with hostile texts and odd bytes, printed in every format")
	r, all := c.Rand(), corpus(t)
	cost := mutate.Each(t, score.Size(3_000, 10_000_000), 2*time.Minute, func() []byte {
		raw := all[r.IntN(len(all))]
		if r.IntN(3) == 0 {
			return mutate.Text(r, all)
		}
		var m observerpb.GetFlowsResponse
		if err := proto.Unmarshal(raw, &m); err != nil {
			t.Fatal(err)
		}
		poison(r, m.ProtoReflect())
		raw, err := proto.Marshal(&m)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}, func(raw []byte) { printed(t, raw) })
	c.Count(cost.Tried, "flows")
	c.Say("%v", cost)
}
