package garbage

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestIdentities(t *testing.T) {
	start := time.Now()
	g := NewIdentities(30 * time.Minute)
	for _, c := range []struct {
		after      time.Duration
		all, used  string // "7!" is marked
		mark, undo string
		remove     string
	}{
		{0, "1 2 3 4!", "1", "", "", ""},
		{29 * time.Minute, "1 2 3 4!", "1 3", "", "", ""},
		{31 * time.Minute, "1 2 3 4!", "1", "2", "", "4"},
		{32 * time.Minute, "1 2! 3", "1 2", "", "2", ""}, // it came back
		{33 * time.Minute, "1 2 3", "1", "", "", ""},
		{62 * time.Minute, "1 2 3", "1", "3", "", ""}, // 3 was in use until 31
		{63 * time.Minute, "1 2 3!", "1", "2", "", "3"},
		{64 * time.Minute, "1 2!", "1", "", "", "2"},
		{65 * time.Minute, "1", "1", "", "", ""},
		{99 * time.Minute, "1 2", "1", "", "", ""}, // another 2
	} {
		var all []Identity
		for name := range strings.FieldsSeq(c.all) {
			all = append(all, Identity{strings.TrimSuffix(name, "!"), strings.HasSuffix(name, "!")})
		}
		used := map[string]bool{}
		for name := range strings.FieldsSeq(c.used) {
			used[name] = true
		}
		got := g.Look(start.Add(c.after), all, used)
		want := fmt.Sprint(strings.Fields(c.mark), strings.Fields(c.undo), strings.Fields(c.remove))
		if s := fmt.Sprint(got.Mark, got.Unmark, got.Delete); s != want {
			t.Errorf("after %s: %s, want %s", c.after, s, want)
		}
	}
}
