package connectivity

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// Options are how places are to be made, by the flags of the command.
type Options struct {
	Namespace      string // of the workloads
	AgentNamespace string // where the cluster has its agents
	ForceDeploy    bool
	SingleNode     bool
	Image          string            // of the workloads; "": the agents' own
	NodeSelector   map[string]string // where workloads may run
	ExternalTarget string            // "": a machine outside that the place makes
	ExternalCIDR   string
	ExternalIP     string
	ExternalOther  string
}

// External is what the flags say of the outside; false: nothing.
func (o Options) External() (External, bool, error) {
	given := 0
	for _, s := range []string{o.ExternalTarget, o.ExternalCIDR, o.ExternalIP, o.ExternalOther} {
		if s != "" {
			given++
		}
	}
	if given == 0 {
		return External{}, false, nil
	}
	if given < 4 {
		return External{}, false, &UsageError{"--external-target, --external-cidr, --external-ip and --external-other-ip go together"}
	}
	prefix, err1 := netip.ParsePrefix(o.ExternalCIDR)
	ip, err2 := netip.ParseAddr(o.ExternalIP)
	other, err3 := netip.ParseAddr(o.ExternalOther)
	switch err := errors.Join(err1, err2, err3); {
	case err != nil:
		return External{}, false, &UsageError{err.Error()}
	case !prefix.Contains(ip) || !prefix.Contains(other) || ip == other || !ip.Is4():
		return External{}, false, &UsageError{"--external-ip and --external-other-ip are to be two IPv4 addresses of --external-cidr"}
	}
	return External{Name: o.ExternalTarget, V4: Block{CIDR: prefix.Masked(), IP: ip, Other: other}}, true, nil
}

// UsageError is a mistake in what was asked for.
type UsageError struct{ What string }

// Error implements error.
func (e *UsageError) Error() string { return e.What }

// ExitCode is what the command ends with.
func (e *UsageError) ExitCode() int { return 2 }

// NewCommand is `hypha connectivity`; open finds the place that is meant.
func NewCommand(open func(*cobra.Command, Options) (Place, error)) *cobra.Command {
	cmd := &cobra.Command{Use: "connectivity", Short: "Try whether everybody reaches whom they should", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(testCommand(open))
	return cmd
}

func testCommand(open func(*cobra.Command, Options) (Place, error)) *cobra.Command {
	c := Config{FlowsWait: 5 * time.Second}
	var o Options
	var tests []string
	var junit, flows string
	var properties map[string]string
	var list, hubble, stamps, pause bool
	var timeout time.Duration
	var concurrency int
	cmd := &cobra.Command{
		Use: "test", Short: "Deploy workloads, put policies in force, and try who reaches whom", Args: cobra.NoArgs,
		Long: "Deploy clients, servers and a machine outside, put one set of policies in force after the other, and try whether everybody\n" +
			"reaches whom they should and nobody else. It needs no internet. Works on a Kubernetes cluster, and on the demo (`hypha demo up`).\n" +
			"Workloads and policies are removed in the end.",
	}
	f := cmd.Flags()
	f.StringSliceVar(&tests, "test", nil, "run tests that match one of these regular expressions, leave out those that match one that begins with '!'; test/scenario, such as '/pod-to-cidr', works too")
	f.BoolVar(&list, "list", false, "print the names of the tests that would be run, and stop")
	f.StringVar(&o.Namespace, "test-namespace", "cilium-test", "namespace of the workloads; -1 is put behind it")
	f.IntVar(&concurrency, "test-concurrency", 1, "how many tests at a time: more than 1 is not supported yet; --parallel is how many actions of a test")
	f.IntVar(&c.Parallel, "parallel", 8, "how many actions of a test at a time")
	f.StringVar(&junit, "junit-file", "", "write a JUnit report to this file")
	f.StringToStringVar(&properties, "junit-property", nil, "properties of the report, NAME=VALUE,...")
	f.BoolVar(&o.SingleNode, "single-node", false, "use one node only")
	f.StringToStringVar(&o.NodeSelector, "node-selector", nil, "run workloads only on nodes with these labels")
	f.BoolVar(&o.ForceDeploy, "force-deploy", false, "deploy the workloads anew where some are there")
	f.BoolVar(&c.Keep, "keep", false, "leave the workloads there for the next run")
	f.StringVar(&o.Image, "image", "", "image of the workloads, one that has `hypha` (default: that of the agents)")
	f.StringVar(&o.ExternalTarget, "external-target", "", "name or address outside, instead of a machine outside that is made for the test; port 80 answers HTTP, port 443 takes connections")
	f.StringVar(&o.ExternalCIDR, "external-cidr", "", "prefix outside, such as 1.0.0.0/8")
	f.StringVar(&o.ExternalIP, "external-ip", "", "address in it, such as 1.1.1.1")
	f.StringVar(&o.ExternalOther, "external-other-ip", "", "another address in it, such as 1.0.0.1")
	f.DurationVar(&timeout, "timeout", 24*time.Hour, "how long all of it may take")
	f.DurationVar(&c.ConnectTimeout, "connect-timeout", 2*time.Second, "how long nobody has to answer to count as a refusal")
	f.DurationVar(&c.RequestTimeout, "request-timeout", 10*time.Second, "how long an answer is waited for")
	f.DurationVar(&c.PostTestSleep, "post-test-sleep", 0, "wait after each test")
	f.BoolVar(&hubble, "hubble", true, "ask nodes about the flows that they drop")
	f.StringVar(&flows, "flow-validation", string(FlowsStrict), "a refusal that no node tells of: strict (fails), warning, disabled")
	f.BoolVar(&c.PrintFlows, "print-flows", false, "print what was dropped during each test")
	f.BoolVar(&c.PrintFlows, "all-flows", false, "the same")
	f.BoolVarP(&pause, "pause-on-fail", "p", false, "wait for the Enter key after a test that has failed")
	f.BoolVarP(&c.Verbose, "verbose", "v", false, "print every action")
	f.BoolVarP(&stamps, "timestamp", "t", false, "begin lines with the time")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var err error
		if c.Selection, err = Select(tests); err != nil {
			return &UsageError{"test filter: " + err.Error()}
		}
		switch c.Flows = FlowValidation(flows); {
		case !hubble:
			c.Flows = FlowsDisabled
		case c.Flows != FlowsStrict && c.Flows != FlowsWarn && c.Flows != FlowsDisabled:
			return &UsageError{fmt.Sprintf("--flow-validation %q: want strict, warning or disabled", flows)}
		}
		if concurrency != 1 {
			return &UsageError{"--test-concurrency: tests run one after the other, more at a time is not supported yet (--parallel is for the actions of one)"}
		}
		if _, _, err := o.External(); err != nil {
			return err
		}
		suite := Suite()
		if list {
			for _, t := range suite {
				if c.Selection.wantsAny(t) {
					fmt.Fprintln(cmd.OutOrStdout(), t.Name)
				}
			}
			return nil
		}
		c.SingleNode = o.SingleNode
		o.Namespace += "-1"
		if pause {
			c.Pause = enter
		}
		place, err := open(cmd, o)
		if err != nil {
			return err
		}
		begin := time.Now()
		ctx, cancel := context.WithTimeoutCause(cmd.Context(), timeout, fmt.Errorf("the tests took longer than %s", timeout))
		defer cancel()
		err = Run(ctx, place, suite, c, NewLog(cmd.OutOrStdout(), stamps))
		if junit != "" {
			err = errors.Join(err, WriteJUnit(junit, suite, begin, os.Args[1:], properties))
		}
		return err
	}
	return cmd
}

// enter waits for the Enter key.
func enter(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		close(done)
	}()
	select {
	case <-ctx.Done():
	case <-done:
	}
}
