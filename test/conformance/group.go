package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// group is a part of a suite: one table of the document.
type group struct {
	name   string
	module string         // whose version counts
	focus  *regexp.Regexp // of names of specs in e2e.test; nil: policy.test, all of it
}

const (
	kubernetes = "k8s.io/kubernetes"
	policyAPI  = "sigs.k8s.io/network-policy-api"
)

var groups = []group{
	{"conformance", kubernetes, regexp.MustCompile(`\[sig-network\].*\[Conformance\]`)},
	{"networkpolicy", kubernetes, regexp.MustCompile(`\[sig-network\].*NetworkPolic`)},
	{"services", kubernetes, regexp.MustCompile(`\[sig-network\].*Services`)},
	{"network-policy-api", policyAPI, nil},
}

func names(list []group) []string {
	var out []string
	for _, g := range list {
		out = append(out, g.name)
	}
	return out
}

// choose finds groups by their names.
func choose(wanted []string) ([]group, error) {
	var out []group
	for _, name := range wanted {
		i := slices.IndexFunc(groups, func(g group) bool { return g.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no group %q; there are %s", name, strings.Join(names(groups), ", "))
		}
		out = append(out, groups[i])
	}
	return out, nil
}

// lack is something that a machine may not have, without which specs cannot be run.
type lack struct {
	reason string
	spec   *regexp.Regexp // names of specs of e2e.test
	probe  string         // what is in all commands of policy.test that fail for want of it
	have   func() bool
}

var lacks = []lack{{reason: "the machine's kernel has no SCTP", spec: regexp.MustCompile(`SCTPConnectivity`), probe: "--protocol=sctp", have: sctp}}

// probes is how policy.test tells of a command in a pod that did not do as it should.
var probes = regexp.MustCompile(`FAILED Command was|FAILED to execute command`)

// explains says whether the want of this is all that made a spec of policy.test fail: no other probe failed than those that need it.
func (l lack) explains(output []string) bool {
	found := false
	for _, line := range output {
		if probes.MatchString(line) {
			if !strings.Contains(line, l.probe) {
				return false
			}
			found = true
		}
	}
	return found
}

// missing are the lacks of this machine.
func missing() []lack {
	return slices.DeleteFunc(slices.Clone(lacks), func(l lack) bool { return l.have() })
}

// sctp says whether the kernel makes sockets of this protocol.
func sctp() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		return false
	}
	return unix.Close(fd) == nil
}
