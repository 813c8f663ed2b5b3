package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const printed = `[    0.5] booting
@@ kernel 5.10.0-46-cloud-amd64
@@ begin pod
=== RUN   TestA
=== ATTR  TestA from_pod 123
--- PASS: TestA (0.10s)
=== RUN   TestB
=== RUN   TestB/ipv4
    b_test.go:5: this kernel has none of it
=== RUN   TestB/ipv6
    b_test.go:6: not today
--- PASS: TestB (0.10s)
    --- SKIP: TestB/ipv4 (0.10s)
    --- SKIP: TestB/ipv6 (0.10s)
PASS
@@ end pod 0
@@ begin host
=== RUN   TestC
--- FAIL: TestC (0.10s)
FAIL
@@ end host 1
@@ begin link
=== RUN   TestD
[    9.5] kernel panic
`

func TestRead(t *testing.T) {
	var told []string
	r, err := read(strings.NewReader(strings.ReplaceAll(printed, "\n", "\r\n")), func(r *result) { told = append(told, r.Check) })
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"pod", "host", "link"}, told); d != "" || r.Release != "5.10.0-46-cloud-amd64" || r.version() != "5.10.0" {
		t.Errorf("%s %s", r.Release, d)
	}
	pod, host, link := r.result("pod"), r.result("host"), r.result("link")
	if pod.Passed != 2 || pod.Attrs["from_pod"] != "123" || len(pod.Failed) != 0 {
		t.Errorf("%+v", pod)
	}
	if d := cmp.Diff([]string{"TestB/ipv4 (this kernel has none of it)", "TestB/ipv6 (not today)"}, pod.Skipped); d != "" {
		t.Error(d)
	}
	if pod.ok() {
		t.Error("a test that skipped itself for no fault of the kernel's is fine")
	}
	if pod.Skipped = pod.Skipped[:1]; !pod.ok() {
		t.Error("a test that skipped itself for what the kernel lacks is not fine")
	}
	if host.ok() || host.Code != 1 || len(host.Failed) != 1 {
		t.Errorf("%+v", host)
	}
	if link.ok() || link.Ended {
		t.Errorf("%+v", link)
	}
	if r.ok(3) {
		t.Error("all is well")
	}
}

// A run of some checks keeps what the run before made of the others, unless that was another kernel.
func TestSave(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run.json")
	for _, x := range []struct {
		release, check, want string
	}{{"1", "a", "a"}, {"1", "b", "b a"}, {"2", "c", "c"}} {
		r := &run{Release: x.release, Results: []*result{{Check: x.check}}}
		if err := r.save(path); err != nil {
			t.Fatal(err)
		}
		got, err := load(path)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, c := range got.Results {
			names = append(names, c.Check)
		}
		if s := strings.Join(names, " "); s != x.want {
			t.Errorf("kept %s, want %s", s, x.want)
		}
	}
}

func TestNewest(t *testing.T) {
	names := []string{"linux-image-7.2.9+deb13-cloud-amd64", "linux-image-7.2.12+deb13-cloud-amd64", "linux-image-7.2.12+deb13-cloud-amd64-dbg",
		"linux-image-7.3.4+deb13-cloud-amd64", "linux-image-7.2.6+deb13-cloud-amd64"}
	if got, err := newest(names, `^linux-image-7\.2\.[0-9]+\+deb13-cloud-amd64$`); err != nil || got != names[1] {
		t.Errorf("%s %v", got, err)
	}
	if _, err := newest(names, `^linux-image-9`); err == nil {
		t.Error("found what is not there")
	}
}
