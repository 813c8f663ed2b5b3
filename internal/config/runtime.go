package config

import (
	"fmt"
	"slices"
	"sort"
	"strings"
)

// Runtime are the options that `hypha config set` changes without a restart.
var Runtime = map[string]bool{"policy-audit-mode": true, "enable-policy": true, "debug": true}

// upstream spells runtime options in its own way: PolicyAuditMode=Enabled.
var upstream = map[string]string{"policyauditmode": "policy-audit-mode", "policyenforcement": "enable-policy", "debug": "debug"}

// RuntimeValue checks a runtime option, in our spelling or upstream's (PolicyAuditMode=Enabled), and returns it in ours.
func RuntimeValue(name, value string) (Option, error) {
	if !Runtime[name] {
		if ours, ok := upstream[strings.ToLower(strings.ReplaceAll(name, "-", ""))]; ok {
			name = ours
		}
	}
	if !Runtime[name] {
		known := make([]string, 0, len(Runtime))
		for n := range Runtime {
			known = append(known, n)
		}
		sort.Strings(known)
		return Option{}, fmt.Errorf("option %q cannot be changed while the agent runs; these can: %s", name, strings.Join(known, ", "))
	}
	v := strings.ToLower(value)
	if name == "enable-policy" {
		if !slices.Contains([]string{"default", "always", "never"}, v) {
			return Option{}, fmt.Errorf("option %s: %q is none of default, always, never", name, value)
		}
		return Option{Name: name, Value: v}, nil
	}
	switch v {
	case "true", "enabled", "enable", "on", "1":
		v = "true"
	case "false", "disabled", "disable", "off", "0":
		v = "false"
	default:
		return Option{}, fmt.Errorf("option %s: %q is neither true nor false", name, value)
	}
	return Option{Name: name, Value: v}, nil
}
