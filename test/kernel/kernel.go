package main

import (
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A kernel is one that the checks run on.
type kernel struct {
	name    string // as the documents call it: "6.12", "own"
	pattern string // of the image package's name; "": the machine's own, which runs already
}

// kernels are those that Hypha promises to run on, oldest first: the oldest supported, the long-term ones of the field, the
// newest, and whatever runs here. (amd64 names: the guests are of the machine's own kind.)
var kernels = []kernel{
	{"5.10", `^linux-image-5\.10\.[0-9-]+-cloud-` + runtime.GOARCH + `$`},
	{"6.1", `^linux-image-6\.1\.0-[0-9]+-cloud-` + runtime.GOARCH + `$`},
	{"6.12", `^linux-image-6\.12\.[0-9]+\+deb13-cloud-` + runtime.GOARCH + `$`},
	{"7.2", `^linux-image-7\.2\.[0-9]+\+deb13-cloud-` + runtime.GOARCH + `$`},
	{"own", ""},
}

// suites are where the packages come from, whatever the machine's own is.
const suites = `
deb http://deb.debian.org/debian bullseye main
deb http://deb.debian.org/debian-security bullseye-security main
deb http://deb.debian.org/debian bookworm main
deb http://deb.debian.org/debian-security bookworm-security main
deb http://deb.debian.org/debian trixie main
deb http://deb.debian.org/debian-security trixie-security main
deb http://deb.debian.org/debian trixie-backports main
`

// choose picks kernels by name; none: all.
func choose(names []string) ([]kernel, error) {
	if len(names) == 0 {
		return kernels, nil
	}
	var out []kernel
	for _, n := range names {
		i := slices.IndexFunc(kernels, func(k kernel) bool { return k.name == n })
		if i < 0 {
			return nil, fmt.Errorf("there is no kernel %q here", n)
		}
		out = append(out, kernels[i])
	}
	return out, nil
}

// newest is the latest of the names that match, by the numbers in them.
func newest(names []string, pattern string) (string, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return "", err
	}
	best := ""
	for _, n := range names {
		if re.MatchString(n) && (best == "" || slices.Compare(numbers(n), numbers(best)) > 0) {
			best = n
		}
	}
	if best == "" {
		return "", fmt.Errorf("no package is called like %s", pattern)
	}
	return best, nil
}

// numbers are the numbers in a name, in order.
func numbers(name string) (out []int) {
	for _, f := range strings.FieldsFunc(name, func(r rune) bool { return r < '0' || r > '9' }) {
		var n int
		if _, err := fmt.Sscan(f, &n); err == nil {
			out = append(out, n)
		}
	}
	return out
}

// ownRelease is what the machine's own kernel calls itself.
func ownRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
