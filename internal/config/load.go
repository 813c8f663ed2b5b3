package config

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sort"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

// EnvPrefix starts the variable of every option: HYPHA_NODE_NAME is node-name.
const EnvPrefix = "HYPHA_"

// ErrHelp is returned when the command line asks for help; Usage has the text.
var ErrHelp = pflag.ErrHelp

// Option is one option with its value in force, for `hypha config`.
type Option struct {
	Name, Value, Default, Source, Usage string
}

// Loaded is what Load found.
type Loaded struct {
	Agent    Agent
	Options  []Option // by name
	Warnings []string // of what was passed over, one sentence each
}

// Usage is the flags' help text.
func Usage() string { return flags("this host's name").FlagUsages() }

// LoadAgent reads the options: defaults, then the directory, then the YAML file, then the environment (as of os.Environ),
// then args (as of os.Args[1:]). A name that is not an option, in args or the file, is an error, as is a value that makes no
// sense. In the directory, which may serve several programs, such a name is a warning.
func LoadAgent(args []string, environ func() []string) (*Loaded, error) {
	return LoadAgentFor(nil, args, environ)
}

// found are the options by which an agent finds out what its node's options are: those cannot say otherwise.
var found = []string{"config", "config-dir", "identity-allocation-mode", "k8s-api-server", "k8s-kubeconfig-path", "k8s-namespace", "node-name", "state-dir"}

// LoadAgentFor is LoadAgent with options of this node alone, which go before those of the directory.
func LoadAgentFor(node map[string]string, args []string, environ func() []string) (*Loaded, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("find host name: %w", err)
	}
	fs := flags(host)
	fs.Usage = func() {} // ErrHelp says it
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q: options are given as --name=value", fs.Arg(0))
	}

	k := koanf.New(".")
	source := map[string]string{}
	mark := func(name string, keys []string) error {
		for _, key := range keys {
			if fs.Lookup(key) == nil {
				return fmt.Errorf("%s: unknown option %q%s", name, key, suggest(fs, key))
			}
		}
		return nil
	}

	envs := koanf.New(".")
	if err := envs.Load(env.Provider(".", env.Opt{Prefix: EnvPrefix, EnvironFunc: environ, TransformFunc: func(key, v string) (string, any) {
		name := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(key, EnvPrefix)), "_", "-")
		if fs.Lookup(name) == nil {
			return "", nil // other tools of ours have variables too
		}
		return name, v
	}}), nil); err != nil {
		return nil, fmt.Errorf("read environment: %w", err)
	}

	l := &Loaded{}
	place := func(option string) string {
		if path, _ := fs.GetString(option); path != "" {
			return path
		}
		return envs.String(option)
	}
	if dir := place("config-dir"); dir != "" {
		values, err := readDir(dir)
		if err != nil {
			return nil, err
		}
		for name, v := range values {
			if err := mark(dir, []string{name}); err != nil {
				l.Warnings = append(l.Warnings, err.Error())
				continue
			}
			if err := k.Set(name, v); err != nil {
				return nil, fmt.Errorf("read configuration directory %s: option %s: %w", dir, name, err)
			}
			source[name] = "directory"
		}
	}
	for name, v := range node {
		err := mark("CiliumNodeConfig", []string{name})
		if slices.Contains(found, name) {
			err = fmt.Errorf("CiliumNodeConfig: option %q is not for it to set", name)
		}
		if err != nil {
			l.Warnings = append(l.Warnings, err.Error())
			continue
		}
		if err := k.Set(name, v); err != nil {
			return nil, fmt.Errorf("CiliumNodeConfig: option %s: %w", name, err)
		}
		source[name] = "node"
	}
	sort.Strings(l.Warnings)
	path := place("config")
	if path != "" {
		f := koanf.New(".")
		if err := f.Load(file.Provider(path), yaml.Parser()); err != nil {
			return nil, fmt.Errorf("read configuration file %s: %w", path, err)
		}
		if err := mark(path, f.Keys()); err != nil {
			return nil, err
		}
		for _, key := range f.Keys() {
			source[key] = "file"
		}
		if err := k.Merge(f); err != nil {
			return nil, fmt.Errorf("read configuration file %s: %w", path, err)
		}
	}
	for _, key := range envs.Keys() {
		source[key] = "environment"
	}
	if err := k.Merge(envs); err != nil {
		return nil, fmt.Errorf("read environment: %w", err)
	}
	if err := k.Load(posflag.Provider(fs, ".", k), nil); err != nil {
		return nil, fmt.Errorf("read flags: %w", err)
	}
	fs.Visit(func(f *pflag.Flag) { source[f.Name] = "flag" })

	if err := typed(fs, k); err != nil {
		return nil, err
	}
	if err := k.Unmarshal("", &l.Agent); err != nil {
		return nil, fmt.Errorf("read options: %w", err)
	}
	if err := l.Agent.check(); err != nil {
		return nil, err
	}
	fs.VisitAll(func(f *pflag.Flag) {
		src := source[f.Name]
		if src == "" {
			src = "default"
		}
		l.Options = append(l.Options, Option{Name: f.Name, Value: show(k.Get(f.Name)), Default: strings.Trim(f.DefValue, "[]"), Source: src, Usage: f.Usage})
	})
	sort.Slice(l.Options, func(i, j int) bool { return l.Options[i].Name < l.Options[j].Name })
	return l, nil
}

// typed converts what came as text (variables, quoted YAML) by way of the option's own flag, which knows its type.
func typed(fs *pflag.FlagSet, k *koanf.Koanf) error {
	var errs error
	fs.VisitAll(func(f *pflag.Flag) {
		if n, ok := k.Get(f.Name).(int); ok && n != 0 && f.Value.Type() == "duration" { // nanoseconds are never meant
			errs = errors.Join(errs, fmt.Errorf("option %s: %d has no unit; write %ds", f.Name, n, n))
			return
		}
		v, ok := k.Get(f.Name).(string)
		if !ok || f.Value.Type() == "string" {
			return
		}
		if f.Changed { // a flag's own text: pflag has checked it
			return
		}
		if err := f.Value.Set(v); err != nil {
			errs = errors.Join(errs, fmt.Errorf("option %s: %q is no %s: %w", f.Name, v, f.Value.Type(), err))
			return
		}
		var val any = f.Value.String()
		if s, ok := f.Value.(pflag.SliceValue); ok {
			val = s.GetSlice()
		}
		if err := k.Set(f.Name, val); err != nil {
			errs = errors.Join(errs, fmt.Errorf("option %s: %w", f.Name, err))
		}
	})
	return errs
}

func show(v any) string {
	if l, ok := v.([]string); ok {
		return strings.Join(l, ",")
	}
	if l, ok := v.([]any); ok {
		out := make([]string, len(l))
		for i := range l {
			out[i] = fmt.Sprint(l[i])
		}
		return strings.Join(out, ",")
	}
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

// suggest names the option closest to a mistyped one.
func suggest(fs *pflag.FlagSet, name string) string {
	best, dist := "", len(name)/2+1
	fs.VisitAll(func(f *pflag.Flag) {
		if d := distance(name, f.Name); d < dist {
			best, dist = f.Name, d
		}
	})
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		prev := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			prev, row[j] = row[j], min(row[j]+1, row[j-1]+1, prev+cost)
		}
	}
	return row[len(b)]
}
