package workload

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// NewCommand is `hypha workload`: the server that the demo starts in each pod, and clients to try it with.
func NewCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:    "workload",
		Short:  "Serve and probe inside a pod of the demo",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(serveCommand(), getCommand(), echoCommand(), probeCommand(), outsideCommand())
	return cmd
}

func serveCommand() *cobra.Command {
	cfg := Config{}
	var readyFD int
	var debug bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve HTTP and echo on all addresses until SIGTERM",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			level := slog.LevelInfo
			if debug {
				level = slog.LevelDebug
			}
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
			s, err := New(cfg, log)
			if err != nil {
				return err
			}
			log.Info("serving", "pod", cfg.Name, "node", cfg.Node, "http", cfg.HTTP, "echo", cfg.Echo)
			if readyFD > 0 {
				if err := tellReady(readyFD); err != nil {
					log.Warn("tell that the workload is ready", "error", err)
				}
			}
			return s.Run(ctx)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.Name, "name", "workload", "name of the pod, for the answers")
	f.StringVar(&cfg.Node, "node", "nowhere", "name of its node, for the answers")
	f.IntVar(&cfg.HTTP, "http-port", HTTPPort, "TCP port of the HTTP server, 0: none")
	f.IntVar(&cfg.Echo, "echo-port", EchoPort, "TCP and UDP port of the echo service, 0: none")
	f.IntVar(&readyFD, "ready-fd", 0, "file descriptor to write a line to once all ports are open")
	f.BoolVar(&debug, "debug", false, "log every request")
	return cmd
}

func tellReady(fd int) error {
	f := os.NewFile(uintptr(fd), "ready")
	if f == nil {
		return fmt.Errorf("descriptor %d is not open", fd)
	}
	_, err := f.WriteString("ready\n")
	return joinClose(err, f)
}

func getCommand() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "get URL",
		Short: "Fetch a URL and print the answer",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			body, err := Client{}.Get(ctx, args[0])
			_, _ = fmt.Fprint(cmd.OutOrStdout(), body)
			return err
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Second, "give up after this time")
	return cmd
}

func echoCommand() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:       "echo tcp|udp HOST:PORT",
		Short:     "Send bytes to an echo service and time their return",
		Args:      cobra.ExactArgs(2),
		ValidArgs: []string{"tcp", "udp"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] != "tcp" && args[0] != "udp" {
				return fmt.Errorf("echo over %q: want tcp or udp", args[0])
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			d, err := Client{}.Echo(ctx, args[0], args[1])
			if err != nil {
				return err
			}
			_, _ = fmt.Fprintf(cmd.OutOrStdout(), "echoed by %s in %s\n", args[1], d.Round(time.Microsecond))
			return nil
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Second, "give up after this time")
	return cmd
}

// exitError ends the command with a code after it has said everything.
type exitError int

func (e exitError) Error() string { return "not reached" }

// ExitCode is what the command ends with.
func (e exitError) ExitCode() int { return int(e) }

func probeCommand() *cobra.Command {
	var timeout time.Duration
	var ns string
	cmd := &cobra.Command{
		Use:   "probe http://HOST:PORT/ | connect://HOST:PORT | syn://HOST:PORT | tcp://HOST:PORT | udp://HOST:PORT | icmp://HOST",
		Short: "Reach for somebody once and print what came of it, as JSON",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			p := Try(ctx, args[0], ns)
			_, _ = cmd.OutOrStdout().Write(p.write())
			if p.Outcome != Reached {
				return exitError(1)
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Second, "give up after this time")
	cmd.Flags().StringVar(&ns, "netns", "", "name of a network namespace to do it in; the host has to be an address then")
	return cmd
}

func outsideCommand() *cobra.Command {
	var o Outside
	cmd := &cobra.Command{
		Use:   "outside",
		Short: "Be a machine outside the cluster that this node is connected with, until SIGTERM",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			o.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			return o.Run(ctx)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.NS, "netns", "outside", "name of its network namespace")
	f.StringVar(&o.Device, "device", "hyoutside", "name of the node's device towards it")
	f.StringSliceVar(&o.Node, "node-address", nil, "addresses of the node on that device, with their lengths, one of each IP version")
	f.StringSliceVar(&o.Addrs, "address", nil, "addresses of the machine, with their lengths")
	f.IntSliceVar(&o.Ports, "port", []int{HTTPPort, 443}, "TCP ports of its HTTP servers")
	return cmd
}

func joinClose(err error, f *os.File) error {
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
