package demo

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/hypha-net/hypha/internal/model"
)

// UsageError is a mistake in what was asked for, as opposed to something that went wrong.
type UsageError struct{ What string }

// Error implements error.
func (e *UsageError) Error() string { return e.What }

// ExitCode is what the command ends with.
func (e *UsageError) ExitCode() int { return 2 }

const maxPodName = 40

var (
	dnsLabel   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)
	labelKey   = regexp.MustCompile(`^([A-Za-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)
	namedPort  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?:[0-9]{1,5}/(tcp|udp|sctp)$`)
	labelValue = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$`)
)

// check refuses what cannot be a pod of the demo.
func (p pod) check() error {
	bad := func(format string, args ...any) error { return &UsageError{fmt.Sprintf(format, args...)} }
	if len(p.Name) > maxPodName || !dnsLabel.MatchString(p.Name) {
		return bad("%q cannot be a pod's name: want lower case letters, digits and '-', at most %d", p.Name, maxPodName)
	}
	if isNode(p.Name) || p.Name == worldName {
		return bad("%q cannot be a pod's name: the demo uses it itself", p.Name)
	}
	if len(p.Namespace) > 63 || !dnsLabel.MatchString(p.Namespace) {
		return bad("%q cannot be a namespace: want lower case letters, digits and '-', at most 63", p.Namespace)
	}
	if !isNode(p.Node) {
		var names []string
		for _, n := range nodes {
			names = append(names, n.name)
		}
		return bad("there is no node %q: the demo has %s", p.Node, strings.Join(names, " and "))
	}
	for _, s := range p.Ports {
		if !namedPort.MatchString(s) {
			return bad("%q is no named port: want name:number/tcp", s)
		}
	}
	seen := map[string]bool{}
	for _, s := range p.Labels {
		key, value, _ := strings.Cut(s, "=")
		if source, rest, ok := strings.Cut(key, ":"); ok {
			if source == model.SourceReserved {
				return bad("label %q: the source %q is not for pods", s, source)
			}
			key = rest
		}
		switch {
		case len(key) > 253 || !labelKey.MatchString(key) || len(value) > 63 || !labelValue.MatchString(value):
			return bad("%q is no label: want key=value, of letters, digits, '.', '_' and '-'", s)
		case key == model.KeyNamespace || key == model.KeyCluster || key == model.KeyServiceAccount || strings.HasPrefix(key, model.KeyNamespaceLabels):
			return bad("label %q: a pod cannot set %s itself", s, key)
		case seen[key]:
			return bad("label %q: the key is given twice", s)
		}
		seen[key] = true
	}
	return nil
}
