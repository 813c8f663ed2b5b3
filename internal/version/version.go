// Package version says what was built: the release, the commit and the toolchain. The release comes from the linker
// (`-X github.com/hypha-net/hypha/internal/version.Version=v1.2.3`), the rest from what Go records in every binary.
package version

import (
	"runtime"
	"runtime/debug"
)

// Version is the release, set by the linker. String says more.
var Version = "dev"

// Info describes a binary.
type Info struct {
	Version  string `json:"version"`          // "v1.2.3", or "dev"
	Commit   string `json:"commit,omitempty"` // full hash, with "-dirty" when the tree had changes
	Date     string `json:"date,omitempty"`   // of the commit, RFC 3339
	Go       string `json:"go"`
	Platform string `json:"platform"` // "linux/amd64"
}

// Get describes the running binary.
func Get() Info {
	bi, _ := debug.ReadBuildInfo()
	return from(Version, bi)
}

// String is the version in one line, "v1.2.3 0123456789ab": what the agent reports as its own.
func String() string { return Get().String() }

// String is the version in one line.
func (i Info) String() string {
	if i.Commit == "" {
		return i.Version
	}
	commit, dirty := i.Commit, ""
	if n := len(commit) - len("-dirty"); n > 0 && commit[n:] == "-dirty" {
		commit, dirty = commit[:n], "-dirty"
	}
	if len(commit) > 12 {
		commit = commit[:12]
	}
	return i.Version + " " + commit + dirty
}

func from(rel string, bi *debug.BuildInfo) Info {
	i := Info{Version: rel, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if bi == nil {
		return i
	}
	dirty := false
	for _, s := range bi.Settings {
		switch s.Key {
		case "vcs.revision":
			i.Commit = s.Value
		case "vcs.time":
			i.Date = s.Value
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	if dirty && i.Commit != "" {
		i.Commit += "-dirty"
	}
	return i
}
