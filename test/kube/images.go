package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hypha-net/hypha/test/kube/catalog"
	"github.com/hypha-net/hypha/test/kube/cluster"
	"github.com/hypha-net/hypha/test/kube/image"
)

// made says how each image is made.
var made = map[string]func(ctx context.Context, version string) (*image.Image, error){
	"hypha-agent":    func(_ context.Context, version string) (*image.Image, error) { return catalog.Agent(bin, version) },
	"hypha-operator": func(_ context.Context, version string) (*image.Image, error) { return catalog.Operator(bin, version) },
	"workload":       func(context.Context, string) (*image.Image, error) { return catalog.Workload(bin), nil },
	"coredns": func(context.Context, string) (*image.Image, error) {
		return catalog.DNS(filepath.Join(programs, "coredns"), cluster.DNSImage), nil
	},
	"pause": func(ctx context.Context, _ string) (*image.Image, error) {
		file := filepath.Join(programs, "pause")
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", file, "./test/kube/pause")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build pause: %w: %s", err, out)
		}
		return catalog.Pause(file, cluster.PauseImage), nil
	},
	"agnhost":        func(ctx context.Context, _ string) (*image.Image, error) { return agnhost(ctx, catalog.Agnhost) },
	"agnhost-policy": func(ctx context.Context, _ string) (*image.Image, error) { return agnhost(ctx, catalog.Policy) },
	"dns-client":     func(ctx context.Context, _ string) (*image.Image, error) { return catalog.DNSClient(ctx) },
	"nginx": func(ctx context.Context, _ string) (*image.Image, error) {
		return catalog.WebServer(ctx, packages)
	},
}

// packages of Debian that images take programs from.
var packages = catalog.Debian(filepath.Join(bin, "packages"))

// agnhost makes an image of the program and the sources of Kubernetes.
func agnhost(ctx context.Context, make func(ctx context.Context, program, kubernetes string, d catalog.Debian) (*image.Image, error)) (*image.Image, error) {
	folder, _, err := builder().Source(ctx, "k8s.io/kubernetes")
	if err != nil {
		return nil, err
	}
	return make(ctx, filepath.Join(programs, "agnhost"), folder, packages)
}

// suites are images that only Kubernetes' own tests need.
var suites = []string{"agnhost-policy", "dns-client", "nginx"}

func imagesCommand() *cobra.Command {
	var version string
	cmd := &cobra.Command{
		Use: "images [NAME]...", Short: "Make images, as archives in bin/images (default: all but " + strings.Join(suites, ", ") + ")",
		RunE: func(cmd *cobra.Command, names []string) error {
			if len(names) == 0 {
				for name := range made {
					if !slices.Contains(suites, name) {
						names = append(names, name)
					}
				}
				slices.Sort(names)
			}
			for _, name := range names {
				fn, ok := made[name]
				if !ok {
					return fmt.Errorf("there is no image %q", name)
				}
				i, err := fn(cmd.Context(), version)
				if err != nil {
					return err
				}
				file := filepath.Join(archives, name+".tar")
				if err := i.WriteFile(file); err != nil {
					return err
				}
				fmt.Println(file, strings.Join(i.Names, " "))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&version, "version", "devel", "version of the project's images")
	return cmd
}
