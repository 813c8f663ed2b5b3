package observe

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// key is the flag that a setting is for; only those that say whom to ask and how to show can be in the file.
func (e *env) key(c *cobra.Command, name string) (*pflag.Flag, error) {
	all := e.keys()
	if f, ok := all[name]; ok {
		return f, nil
	}
	return nil, usagef("%s: no setting %q; there are %s", c.CommandPath(), name, strings.Join(slices.Sorted(maps.Keys(all)), ", "))
}

// keys are the settings, with fresh flags to try values on.
func (e *env) keys() map[string]*pflag.Flag {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	(&env{}).flags(fs)
	(&printOptions{}).flags(fs)
	out := map[string]*pflag.Flag{}
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Name != "config" && f.Name != "port-forward" {
			out[f.Name] = f
		}
	})
	return out
}

func (e *env) configGet() *cobra.Command {
	c := &cobra.Command{Use: "get [KEY]", Short: "Print one setting, or all that are set", Args: cobra.MaximumNArgs(1)}
	return e.leaf(c, nil, func(c *cobra.Command, args []string) error {
		conf, err := e.readConfig()
		if err != nil {
			return err
		}
		if len(args) == 0 {
			return writeYAML(c, conf)
		}
		f, err := e.key(c, args[0])
		if err != nil {
			return err
		}
		v := f.DefValue
		if s, ok := conf[f.Name]; ok {
			v = strings.Join(settings(s), ",")
		}
		_, err = fmt.Fprintln(c.OutOrStdout(), v)
		return err
	})
}

func (e *env) configSet() *cobra.Command {
	c := &cobra.Command{Use: "set KEY [VALUE]", Short: "Set a setting; without a value, remove it", Args: cobra.RangeArgs(1, 2)}
	return e.leaf(c, nil, func(c *cobra.Command, args []string) error {
		f, err := e.key(c, args[0])
		if err != nil {
			return err
		}
		conf, err := e.readConfig()
		if err != nil {
			return err
		}
		if len(args) == 1 || args[1] == "" {
			delete(conf, f.Name)
			return e.writeConfig(conf)
		}
		if err := f.Value.Set(args[1]); err != nil {
			return usagef("%s %q: %w", f.Name, args[1], err)
		}
		conf[f.Name] = args[1]
		return e.writeConfig(conf)
	})
}

func (e *env) configReset() *cobra.Command {
	c := &cobra.Command{Use: "reset [KEY]", Short: "Take a setting, or all, back to the default", Args: cobra.MaximumNArgs(1)}
	return e.leaf(c, nil, func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return e.writeConfig(map[string]any{})
		}
		f, err := e.key(c, args[0])
		if err != nil {
			return err
		}
		conf, err := e.readConfig()
		if err != nil {
			return err
		}
		delete(conf, f.Name)
		return e.writeConfig(conf)
	})
}

func (e *env) configView() *cobra.Command {
	c := &cobra.Command{Use: "view", Short: "Print all settings as they are in force"}
	po := &printOptions{}
	return e.leaf(c, nil, func(c *cobra.Command, _ []string) error {
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		po.flags(fs)
		conf, err := e.readConfig()
		if err != nil {
			return err
		}
		all := map[string]any{}
		for name, f := range e.keys() {
			all[name] = f.DefValue
			if g := c.Flags().Lookup(name); g != nil {
				all[name] = g.Value.String()
			} else if v, ok := conf[name]; ok {
				all[name] = v
			}
		}
		return writeYAML(c, all)
	})
}

func writeYAML(c *cobra.Command, conf map[string]any) error {
	if len(conf) == 0 {
		return nil
	}
	raw, err := yaml.Marshal(conf)
	if err != nil {
		return fmt.Errorf("encode configuration: %w", err)
	}
	_, err = c.OutOrStdout().Write(raw)
	return err
}

func (e *env) writeConfig(conf map[string]any) error {
	raw, err := yaml.Marshal(conf)
	if err != nil {
		return fmt.Errorf("encode configuration: %w", err)
	}
	path := e.configPath()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".config-*")
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	defer os.Remove(f.Name()) // gone already if all went well
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}
