package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParsePolicy(t *testing.T) {
	good := `[{"labels":[{"key":"name","value":"l3-rule"}],"endpointSelector":{"matchLabels":{"id":"app1"}},
	  "ingress":[{"fromEndpoints":[{"matchLabels":{"id":"app2"}}],"toPorts":[{"ports":[{"port":"80","protocol":"TCP"}]}]}]}]`
	if n, err := parsePolicy("rules.json", []byte(good)); err != nil || n != 1 {
		t.Errorf("%d rules, %v", n, err)
	}
	for name, bad := range map[string]string{
		"unknown field": strings.Replace(good, "fromEndpoints", "fromEndpoint", 1),
		"no JSON":       "[{",
		"empty":         "",
	} {
		if n, err := parsePolicy("rules.json", []byte(bad)); err == nil || n != 0 || !strings.Contains(err.Error(), "rules.json") {
			t.Errorf("%s: %d rules, %v", name, n, err)
		}
	}
}

func TestCommands(t *testing.T) {
	var names []string
	for _, c := range commands() {
		names = append(names, c.Name())
	}
	if d := cmp.Diff([]string{"install", "upgrade", "uninstall", "sysdump", "observe", "demo", "workload"}, names); d != "" {
		t.Error(d)
	}
}

func TestProbe(t *testing.T) {
	checks := probe()
	for _, c := range checks {
		if c.Name == "kernel" && c.Required && c.Detail != "" {
			return
		}
	}
	t.Errorf("no line about the kernel: %+v", checks)
}
