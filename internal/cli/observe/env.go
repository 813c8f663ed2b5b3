package observe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// env is what the commands of one tree share: the flags that say whom to ask, and where settings come from.
type env struct {
	getenv func(string) (string, bool)

	config         string
	debug          bool
	server         string
	portForward    bool
	timeout        time.Duration
	requestTimeout time.Duration
	tls            bool
	tlsInsecure    bool
	tlsCA          []string
	tlsCert        string
	tlsKey         string
	tlsName        string
	stateDir       string // of `hypha`, if it is its tree
}

func newEnv() *env { return &env{getenv: os.LookupEnv} }

// flags are those of every command that asks a server.
func (e *env) flags(f *pflag.FlagSet) {
	f.StringVar(&e.config, "config", "", "configuration file (default: ~/.config/hubble/config.yaml)")
	f.BoolVarP(&e.debug, "debug", "D", false, "say on standard error what is being done")
	f.StringVar(&e.server, "server", "", "flow server: HOST:PORT, tls://HOST:PORT or unix:///PATH (default: the agents of this machine, else "+defaultServer+")")
	f.BoolVarP(&e.portForward, "port-forward", "P", false, "reach the relay of a Kubernetes cluster through its API server")
	f.DurationVar(&e.timeout, "timeout", 5*time.Second, "longest time to connect")
	f.DurationVar(&e.requestTimeout, "request-timeout", 12*time.Second, "longest time for an answer that is not a stream")
	f.BoolVar(&e.tls, "tls", false, "use TLS")
	f.BoolVar(&e.tlsInsecure, "tls-allow-insecure", false, "with TLS: do not check who the server is")
	f.StringSliceVar(&e.tlsCA, "tls-ca-cert-files", nil, "with TLS: authorities to trust, PEM files (default: those of the system)")
	f.StringVar(&e.tlsCert, "tls-client-cert-file", "", "with TLS: certificate to show, a PEM file")
	f.StringVar(&e.tlsKey, "tls-client-key-file", "", "with TLS: its key, a PEM file")
	f.StringVar(&e.tlsName, "tls-server-name", "", "with TLS: name that the server's certificate must have")
}

// overlay gives the flags that are not on the command line their values from HUBBLE_* and the configuration file, in
// this order.
func (e *env) overlay(c *cobra.Command) error {
	if f := c.Flags().Lookup("config"); f != nil && !f.Changed {
		if v, ok := e.getenv("HUBBLE_CONFIG"); ok {
			e.config = v
		}
	}
	conf, err := e.readConfig()
	if err != nil {
		return err
	}
	var bad error
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if bad != nil || f.Changed || f.Name == "help" || f.Name == "config" || f.Name == "not" {
			return
		}
		name := "HUBBLE_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if v, ok := e.getenv(name); ok {
			if err := f.Value.Set(v); err != nil {
				bad = usagef("%s=%q: %w", name, v, err)
			}
			f.Changed = true
			return
		}
		v, ok := conf[f.Name]
		if !ok {
			return
		}
		for _, s := range settings(v) {
			if err := f.Value.Set(s); err != nil {
				bad = usagef("%s: %s: %q: %w", e.configPath(), f.Name, s, err)
				return
			}
		}
		f.Changed = true
	})
	if f := c.Flags().Lookup("state-dir"); f != nil {
		e.stateDir = f.Value.String()
	}
	return bad
}

// settings are the values of one key of the configuration file: a list gives several.
func settings(v any) []string {
	if l, ok := v.([]any); ok {
		out := make([]string, len(l))
		for i, x := range l {
			out[i] = fmt.Sprint(x)
		}
		return out
	}
	if v == nil {
		return nil
	}
	return []string{fmt.Sprint(v)}
}

// configPath is the file in use.
func (e *env) configPath() string {
	if e.config != "" {
		return e.config
	}
	dir, ok := e.getenv("XDG_CONFIG_HOME")
	if !ok || dir == "" {
		home, _ := e.getenv("HOME")
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "hubble", "config.yaml")
}

// readConfig reads the file; without one there are no settings, unless the user named it.
func (e *env) readConfig() (map[string]any, error) {
	raw, err := os.ReadFile(e.configPath())
	if err != nil {
		if e.config == "" && errors.Is(err, fs.ErrNotExist) {
			return map[string]any{}, nil
		}
		return nil, usagef("read configuration: %w", err)
	}
	conf := map[string]any{}
	if err := yaml.Unmarshal(raw, &conf); err != nil {
		return nil, usagef("read configuration %s: %w", e.configPath(), err)
	}
	return conf, nil
}

// note says on standard error what is being done, with --debug.
func (e *env) note(c *cobra.Command, format string, args ...any) {
	if e.debug {
		fmt.Fprintf(c.ErrOrStderr(), "debug: "+format+"\n", args...)
	}
}
