package cgroup

import "testing"

func TestMount(t *testing.T) {
	for line, want := range map[string]string{
		"29 28 0:25 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw": "/sys/fs/cgroup/unified",
		`29 28 0:25 / /mnt/a\040b rw - cgroup2 none rw`:                                 "/mnt/a b",
		"29 28 0:25 /machine /sys/fs/cgroup rw - cgroup2 cgroup2 rw":                    "", // a part of it
		"30 28 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu":                     "",
		"29 28":        "",
		" - ":          "",
		"x - cgroup2 ": "",
	} {
		if got, ok := mount(line); got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v; want %q", line, got, ok, want)
		}
	}
}
