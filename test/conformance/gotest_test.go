package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestReadTests: specs are the innermost tests, and of outer ones those that failed by themselves.
func TestReadTests(t *testing.T) {
	const events = `{"Action":"start"}
{"Action":"run","Test":"T"}
{"Action":"run","Test":"T/One"}
{"Action":"run","Test":"T/One/should_allow"}
{"Action":"output","Test":"T/One/should_allow","Output":"=== RUN   T/One/should_allow\n"}
{"Action":"pass","Test":"T/One/should_allow","Elapsed":1.5}
{"Action":"run","Test":"T/One/should_deny"}
{"Action":"output","Test":"T/One/should_deny","Output":"    x.go:1: FAILED Command was [/agnhost connect --protocol=tcp 10.0.0.1:80]\n"}
{"Action":"output","Test":"T/One/should_deny","Output":"    x.go:1: FAILED Command was [/agnhost connect --protocol=sctp 10.0.0.1:90]\n"}
{"Action":"fail","Test":"T/One/should_deny","Elapsed":2}
{"Action":"run","Test":"T/One/should_deny_SCTP"}
{"Action":"output","Test":"T/One/should_deny_SCTP","Output":"    x.go:1: FAILED Command was [/agnhost connect --protocol=sctp 10.0.0.1:90]\n"}
{"Action":"fail","Test":"T/One/should_deny_SCTP","Elapsed":3}
{"Action":"fail","Test":"T/One","Elapsed":6}
{"Action":"run","Test":"T/Two"}
{"Action":"output","Test":"T/Two","Output":"    x.go:1: suite does not support it\n"}
{"Action":"skip","Test":"T/Two"}
{"Action":"run","Test":"T/Three"}
{"Action":"run","Test":"T/Three/a"}
{"Action":"pass","Test":"T/Three/a"}
{"Action":"output","Test":"T/Three","Output":"    x.go:1: not cleaned up\n"}
{"Action":"fail","Test":"T/Three","Elapsed":4}
{"Action":"run","Test":"T/Four"}
`
	want := []spec{
		{name: "Four", outcome: failed, reason: "did not end"},
		{name: "One/should allow", outcome: passed, seconds: 1.5},
		{name: "One/should deny", outcome: failed, seconds: 2, reason: "x.go:1: FAILED Command was [/agnhost connect --protocol=tcp 10.0.0.1:80] " +
			"x.go:1: FAILED Command was [/agnhost connect --protocol=sctp 10.0.0.1:90]"},
		{name: "One/should deny SCTP", outcome: skipped, seconds: 3, reason: lacks[0].reason},
		{name: "Three", outcome: failed, reason: "x.go:1: not cleaned up", seconds: 4},
		{name: "Three/a", outcome: passed},
		{name: "Two", outcome: skipped, reason: "x.go:1: suite does not support it"},
	}
	got, err := readTests(strings.NewReader(events), "T", lacks)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, equalSpecs); d != "" {
		t.Error(d)
	}
	got, err = readTests(strings.NewReader(`{"Action":"run","Test":"T"}
{"Action":"output","Test":"T","Output":"    x.go:1: no cluster\n"}
{"Action":"fail","Test":"T"}`), "T", lacks)
	if d := cmp.Diff([]spec{{name: "T", outcome: failed, reason: "x.go:1: no cluster"}}, got, equalSpecs); d != "" || err != nil {
		t.Error(d, err)
	}
	for _, bad := range []string{"", "{", `{"Action":"run","Test":"Other"}`} {
		if _, err := readTests(strings.NewReader(bad), "T", nil); err == nil {
			t.Errorf("%q is a run", bad)
		}
	}
}
