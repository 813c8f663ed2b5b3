package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/cli/out"
	"github.com/hypha-net/hypha/internal/doctor"
	"github.com/hypha-net/hypha/internal/paths"
	"github.com/hypha-net/hypha/internal/version"
)

// section is one part of a debuginfo: what was found, or why nothing.
type section struct {
	title string
	key   string
	get   func(context.Context) (any, error)
}

func (e *env) debuginfo() *cobra.Command {
	cmd := &cobra.Command{Use: "debuginfo", Short: "Collect what somebody who helps needs to see, without secrets", Args: need(0, 0, ""),
		Long: "Collect what somebody who helps needs to see: status, endpoints, identities, policy, options, maps, metrics, kernel.\n" +
			"Secrets are left out, but it names workloads, addresses and policies. Exit code 1 when a part could not be had."}
	file := cmd.Flags().String("file", "", "write to this file instead of standard output")
	limit := cmd.Flags().Int("max-rows", 1000, "at most so many rows of each map; 0 = all")
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		var failed int
		obj := out.Object{{Key: "time", Value: time.Now().UTC().Format(time.RFC3339)}}
		var text strings.Builder
		fmt.Fprintf(&text, "# Hypha debuginfo\n\n%s\n", obj[0].Value)
		for _, s := range e.sections(*limit) {
			if cmd.Context().Err() != nil {
				return cmd.Context().Err()
			}
			v, err := s.get(cmd.Context())
			if err != nil {
				failed++
				v = out.Object{{Key: "error", Value: message(err)}}
			}
			obj = append(obj, out.Field{Key: s.key, Value: v})
			fmt.Fprintf(&text, "\n## %s\n\n```yaml\n", s.title)
			if err := out.WriteYAML(&text, v); err != nil {
				return err
			}
			text.WriteString("```\n")
		}
		w := e.Stdout
		if *file != "" {
			f, ferr := os.OpenFile(*file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
			if ferr != nil {
				return fmt.Errorf("write debuginfo: %w", ferr)
			}
			defer func() { err = errors.Join(err, f.Close()) }()
			w = f
		}
		f, err := o.format()
		if err != nil {
			return err
		}
		if f.Table() {
			_, err = io.WriteString(w, text.String())
		} else {
			err = f.Write(w, obj)
		}
		switch {
		case err != nil:
			return fmt.Errorf("write debuginfo: %w", err)
		case failed > 0:
			e.say("%s could not be had; see `error` there.", count(uint64(failed), "part"))
			return silent{ExitFailed}
		}
		return nil
	}
	return cmd
}

var secret = regexp.MustCompile(`(?i)(password|passwd|secret|token|credential)`)

const hidden = "(hidden)"

// redact takes out of the options what nobody else should read.
func redact(opts []*agentv1.ConfigOption) {
	for _, c := range opts {
		for _, v := range []*string{&c.Value, &c.Default} {
			if *v != "" && secret.MatchString(c.GetName()) {
				*v = hidden
			}
			parts := strings.Split(*v, ",")
			for i, p := range parts {
				if u, err := url.Parse(p); err == nil && u.User != nil {
					u.User = url.User("hidden")
					parts[i] = u.String()
				}
			}
			*v = strings.Join(parts, ",")
		}
	}
}

func kernelFacts(context.Context) (any, error) {
	o := out.Object{}
	for _, f := range []struct{ key, path string }{
		{"version", "/proc/version"}, {"commandLine", "/proc/cmdline"}, {"osRelease", "/etc/os-release"}, {"jit", "/proc/sys/net/core/bpf_jit_enable"},
	} {
		b, err := os.ReadFile(f.path)
		v := strings.TrimSpace(string(b))
		if err != nil {
			v = err.Error()
		}
		if f.key == "commandLine" && secret.MatchString(v) {
			v = hidden
		}
		o = append(o, out.Field{Key: f.key, Value: v})
	}
	return o, nil
}

func programFacts(context.Context) (any, error) { return version.Get(), nil }

func (e *env) machineFacts(context.Context) (any, error) {
	return doctor.Examine(e.Probe, or(e.stateDir, paths.StateDir)), nil
}
