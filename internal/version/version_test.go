package version

import (
	"runtime/debug"
	"testing"
)

func TestFrom(t *testing.T) {
	bi := &debug.BuildInfo{Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "0123456789abcdef0123"}, {Key: "vcs.time", Value: "2026-01-02T03:04:05Z"},
		{Key: "vcs.modified", Value: "true"},
	}}
	for _, c := range []struct {
		rel  string
		bi   *debug.BuildInfo
		want string
	}{
		{"dev", nil, "dev"},
		{"v1.2.3", nil, "v1.2.3"},
		{"dev", bi, "dev 0123456789ab-dirty"},
		{"v1.2.3", bi, "v1.2.3 0123456789ab-dirty"},
	} {
		if got := from(c.rel, c.bi).String(); got != c.want {
			t.Errorf("from(%q) = %q, want %q", c.rel, got, c.want)
		}
	}
	if i := from("dev", bi); i.Date != "2026-01-02T03:04:05Z" || i.Go == "" || i.Platform == "" {
		t.Errorf("from: %+v", i)
	}
}
