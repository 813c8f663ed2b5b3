// Package catalog says what is in the project's images, and in those that tests on Kubernetes need and no registry is asked for.
package catalog

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/hypha-net/hypha/test/kube/image"
)

// Registry begins the names of the project's images.
const Registry = "ghcr.io/hypha-net/"

// unreleased is the version of the chart between releases (appVersion).
const unreleased = "devel"

// searched is where images have their programs.
const searched = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Agent is the image of a node: the agent, the CLI under all its names, and the CNI plugin, from a directory of `make build`.
func Agent(bin, version string) (*image.Image, error) {
	i, err := own("hypha-agent", version, bin, map[string]string{"hypha-agent": "usr/bin", "hypha": "usr/bin", "hypha-cni": "opt/cni/bin"})
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"cilium", "cilium-dbg", "hubble"} {
		i.Tree.Link("usr/bin/"+name, "hypha")
	}
	i.Tree.Dir("tmp", fs.ModeSticky|0o777)
	return i, nil
}

// Operator is the image of what works once for a cluster.
func Operator(bin, version string) (*image.Image, error) {
	return own("hypha-operator", version, bin, map[string]string{"hypha-operator": "usr/bin"})
}

// own is an image of the project's own programs, each with its folder in it. It has two tags: the version, which `hypha install`
// asks for, and the one that the chart asks for where nobody set another.
func own(name, version, bin string, programs map[string]string) (*image.Image, error) {
	i := &image.Image{
		Names: []string{Registry + name + ":" + version}, Entrypoint: []string{"/usr/bin/" + name}, Env: []string{searched},
		Labels: map[string]string{
			"org.opencontainers.image.title": name, "org.opencontainers.image.version": version,
			"org.opencontainers.image.source": "https://github.com/hypha-net/hypha", "org.opencontainers.image.licenses": "Apache-2.0",
		},
	}
	if version != unreleased {
		i.Names = append(i.Names, Registry+name+":"+unreleased)
	}
	for program, to := range programs {
		file := filepath.Join(bin, program)
		arch, err := architecture(file)
		if err != nil {
			return nil, err
		}
		if i.Arch != "" && i.Arch != arch {
			return nil, fmt.Errorf("%s is for %s, others are for %s", file, arch, i.Arch)
		}
		i.Arch = arch
		i.Tree.Copy(to+"/"+program, 0o755, file)
	}
	return i, nil
}

// architecture is what a Go program was built for.
func architecture(file string) (string, error) {
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("look at %s (make build makes it): %w", file, err)
	}
	for _, s := range info.Settings {
		if s.Key == "GOARCH" {
			return s.Value, nil
		}
	}
	return "", fmt.Errorf("%s does not say what it was built for", file)
}

// Workload is the image of pods that serve HTTP and echo what they are sent: `hypha workload`.
func Workload(bin string) *image.Image {
	i := &image.Image{
		Names: []string{"hypha.test/workload:1"}, Arch: runtime.GOARCH, Env: []string{searched},
		Entrypoint: []string{"/usr/bin/hypha", "workload"}, Cmd: []string{"serve"},
	}
	i.Tree.Copy("usr/bin/hypha", 0o755, filepath.Join(bin, "hypha"))
	return i
}

// DNS is the image that answers for the names of services.
func DNS(program, name string) *image.Image {
	i := &image.Image{Names: []string{name}, Arch: runtime.GOARCH, Entrypoint: []string{"/coredns"}}
	i.Tree.Copy("coredns", 0o755, program)
	return i
}

// Pause is the image that holds the namespaces of pods, under the name that both containerd and Kubernetes' own tests are told.
func Pause(program, name string) *image.Image {
	i := &image.Image{Names: []string{name}, Arch: runtime.GOARCH, Entrypoint: []string{"/pause"}}
	i.Tree.Copy("pause", 0o755, program)
	return i
}

// tools are what Kubernetes' own tests call in their image besides its main program.
var tools = []string{"dash", "bash", "curl", "dig", "getent", "nc", "ss", "ip", "iperf"}

// Agnhost is the image that Kubernetes' own tests run in their pods, from the program and the sources that it was built of. What
// the published image takes from its distribution comes from this machine.
func Agnhost(ctx context.Context, program, kubernetes string, d Debian) (*image.Image, error) {
	source := filepath.Join(kubernetes, "test", "images", "agnhost")
	version, err := os.ReadFile(filepath.Join(source, "VERSION"))
	if err != nil {
		return nil, fmt.Errorf("make image of agnhost: %w", err)
	}
	names, err := applets(ctx)
	if err != nil {
		return nil, err
	}
	wget, err := d.file(ctx, "wget", "usr/bin/wget") // busybox's crashes when it is given a timeout
	if err != nil {
		return nil, err
	}
	const registry = "registry.k8s.io/e2e-test-images/agnhost:"
	i := &image.Image{
		// The one before is what some tests begin with, to see that it is replaced.
		Names: []string{registry + trim(version), registry + "2.55"}, Arch: runtime.GOARCH, Env: []string{searched}, Entrypoint: []string{"/agnhost"},
		Cmd: []string{"pause"},
	}
	t := &i.Tree
	t.Copy("agnhost", 0o755, program)
	t.Link("agnhost-2", "agnhost")
	for _, f := range []string{"localhost.crt", "localhost.key"} {
		t.Copy(f, 0o644, filepath.Join(source, "porter", f))
	}
	t.Dir("uploads", 0o755)
	t.Dir("tmp", fs.ModeSticky|0o777)
	t.Data("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\nuser-defined-in-image:x:1000:1000::/home:/bin/sh\n"))
	t.Data("etc/group", 0o644, []byte("root:x:0:\nuser-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n"))
	t.Data("etc/wgetrc", 0o644, []byte("tries = 1\n")) // as busybox's does, which the published image has
	var errs error
	for _, name := range append([]string{"busybox", wget}, tools...) {
		errs = errors.Join(errs, t.Program(ctx, name))
	}
	for _, a := range names {
		if !t.Has("usr/bin/" + a) {
			t.Link("bin/"+a, "/usr/bin/busybox")
		}
	}
	t.Link("bin/sh", "/usr/bin/dash") // busybox's own takes its applets for all that tests call by name
	return i, errs
}
