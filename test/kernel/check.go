package main

import (
	"fmt"
	"strings"
	"time"
)

// A check is a command that must succeed on every kernel.
type check struct {
	name    string
	limit   time.Duration // in a guest, whose CPUs are emulated, on a busy machine
	command string        // for sh, in the directory of the programs
}

const verbose = " -test.v -test.timeout 0"

var checks = []check{
	{"doctor", time.Minute, "./hypha doctor -o json"},
	{"verifier", 10 * time.Minute, "./verifier.test -test.run 'TestCase39|Pairwise'" + verbose},
	{"pod", 15 * time.Minute, "./pod.test" + verbose},
	{"overlay", 5 * time.Minute, "./overlay.test" + verbose},
	{"host", 15 * time.Minute, "./host.test" + verbose},
	{"xdp", 15 * time.Minute, "./xdp.test" + verbose},
	{"loader", 10 * time.Minute, "./loader.test" + verbose},
	{"service", 10 * time.Minute, "./service.test" + verbose},
	{"prefilter", 5 * time.Minute, "./prefilter.test" + verbose},
	{"socket", 5 * time.Minute, "./socket.test" + verbose},
	{"link", 5 * time.Minute, "./link.test" + verbose},
	{"smoke", 20 * time.Minute, "HYPHA_E2E_BIN=$PWD ./e2e.test -test.run TestSmoke" + verbose},
	{"maps", 5 * time.Minute, "./maps.test" + verbose}, // last: a test of it wants a kernel that has been up for a minute
}

// clock is made in guests alone: it sets the clock.
var clock = check{"clock", 15 * time.Minute, "HYPHA_E2E_BIN=$PWD HYPHA_E2E_CLOCK=1 ./e2e.test -test.run TestCase25" + verbose}

// reboot is made in starts of their own: each ends in a reset without warning, and the next finds the disk as it was then.
var reboot = check{"reboot", 6 * time.Minute, "HYPHA_E2E_BIN=$PWD HYPHA_E2E_STATE=/state ./e2e.test -test.run TestCase14" + verbose}

// starts of a guest that is reset between them.
const starts = 5

// script is what run.sh reads.
func script(checks []check) []byte {
	var b strings.Builder
	for _, c := range checks {
		fmt.Fprintf(&b, "%s %.0f %s\n", c.name, c.limit.Seconds(), c.command)
	}
	return []byte(b.String())
}

// total is how long a guest may take for all of them, its start included.
func total(checks []check) time.Duration {
	sum := 2 * time.Minute
	for _, c := range checks {
		sum += c.limit
	}
	return sum
}
