package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var equalSpecs = cmp.AllowUnexported(spec{})

// TestReadGinkgo reads a part of a real report.
func TestReadGinkgo(t *testing.T) {
	f, err := os.Open("testdata/ginkgo.json")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	const netpol = "[sig-network] Netpol "
	want := []spec{
		{name: netpol + "NetworkPolicy between server and client should allow egress access to server in CIDR block [Feature:NetworkPolicy]", outcome: failed,
			reason: "Had 1 wrong results in reachability matrix", seconds: (50412489935 * time.Nanosecond).Seconds()},
		{name: netpol + "NetworkPolicy between server and client should allow ingress access from namespace on one named port [Feature:NetworkPolicy]",
			outcome: passed, seconds: 41.61027239},
		{name: netpol + "[Feature:SCTPConnectivity] [LinuxOnly] NetworkPolicy between server and client using SCTP should enforce policy to allow traffic only from " +
			"a pod in a different namespace based on PodSelector and NamespaceSelector [Feature:NetworkPolicy]", outcome: skipped, reason: lacks[0].reason},
	}
	got, err := readGinkgo(f, group{focus: groups[1].focus}.focus, lacks)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, equalSpecs); d != "" {
		t.Error(d)
	}
}

// TestGinkgoLosesNothing: what did not end well is a failure, also where no spec says so.
func TestGinkgoLosesNothing(t *testing.T) {
	const report = `[{"SpecReports": [
{"LeafNodeType": "SynchronizedBeforeSuite", "State": "failed", "Failure": {"Message": "no cluster"}},
{"LeafNodeType": "It", "LeafNodeText": "x never begun", "State": "skipped"},
{"LeafNodeType": "It", "LeafNodeText": "x of another kernel", "State": "skipped"},
{"LeafNodeType": "It", "LeafNodeText": "x says why", "State": "skipped", "Failure": {"Message": "only in a cloud"}},
{"LeafNodeType": "It", "LeafNodeText": "x later", "State": "pending"},
{"LeafNodeType": "It", "LeafNodeText": "x too slow", "State": "timedout"},
{"LeafNodeType": "It", "LeafNodeText": "x broke", "State": "panicked", "Failure": {"ForwardedPanic": "nil map"}},
{"LeafNodeType": "It", "LeafNodeText": "y is not of the group", "State": "passed"}]}]`
	got, err := readGinkgo(strings.NewReader(report), regexp.MustCompile(`^x `), []lack{{reason: "none here", spec: regexp.MustCompile("another kernel")}})
	if err != nil {
		t.Fatal(err)
	}
	want := []spec{
		{name: "SynchronizedBeforeSuite", outcome: failed, reason: "no cluster"},
		{name: "x broke", outcome: failed, reason: "nil map"},
		{name: "x later", outcome: skipped, reason: "pending"},
		{name: "x never begun", outcome: failed, reason: "not run: the run ended before"},
		{name: "x of another kernel", outcome: skipped, reason: "none here"},
		{name: "x says why", outcome: skipped, reason: "only in a cloud"},
		{name: "x too slow", outcome: failed, reason: "timedout"},
	}
	if d := cmp.Diff(want, got, equalSpecs); d != "" {
		t.Error(d)
	}
	for _, empty := range []string{`[]`, `[{"SpecReports": []}]`, `{`} {
		if _, err := readGinkgo(strings.NewReader(empty), groups[0].focus, nil); err == nil {
			t.Errorf("%s is a report", empty)
		}
	}
}
