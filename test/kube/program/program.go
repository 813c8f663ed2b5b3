// Package program builds the programs that a Kubernetes cluster is made of from their sources, as modules of tools/kubernetes name
// them. They are kept, with a file that says of what they were made, so that a second run costs nothing.
package program

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// module is a folder under tools/kubernetes, and what is built in it.
type module struct {
	name     string
	folder   string
	path     string // the module whose version counts
	version  string // pattern of linker flags that tell programs their version: %v the version, %M and %m its first two numbers
	programs map[string]string
	tests    map[string]string // programs that are the tests of a package
}

// kubernetes are the flags that tell its programs their version.
const kubernetes = "-X k8s.io/component-base/version.gitVersion=%v -X k8s.io/component-base/version.gitMajor=%M " +
	"-X k8s.io/component-base/version.gitMinor=%m"

var modules = []module{
	{name: "etcd", folder: "etcd", path: "go.etcd.io/etcd/server/v3", programs: map[string]string{"etcd": "go.etcd.io/etcd/server/v3"}},
	{
		name: "kubernetes", folder: ".", path: "k8s.io/kubernetes", version: kubernetes,
		programs: map[string]string{
			"kubectl": "k8s.io/kubernetes/cmd/kubectl", "kubelet": "k8s.io/kubernetes/cmd/kubelet",
			"kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver", "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
			"kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager", "agnhost": "k8s.io/kubernetes/test/images/agnhost",
		},
	},
	{name: "cni", folder: "cni", path: "github.com/containernetworking/plugins",
		programs: map[string]string{"loopback": "github.com/containernetworking/plugins/plugins/main/loopback"}},
	{name: "coredns", folder: "coredns", path: "github.com/coredns/coredns", programs: map[string]string{"coredns": "github.com/coredns/coredns"}},
	{name: "helm", folder: "helm", path: "helm.sh/helm/v4", version: "-X helm.sh/helm/v4/internal/version.version=%v",
		programs: map[string]string{"helm": "helm.sh/helm/v4/cmd/helm"}},
}

// suites are the tests of Kubernetes itself.
var suites = []module{
	{
		name: "e2e", folder: "e2e", path: "k8s.io/kubernetes", version: kubernetes,
		programs: map[string]string{"ginkgo": "github.com/onsi/ginkgo/v2/ginkgo"}, tests: map[string]string{"e2e.test": "k8s.io/kubernetes/test/e2e"},
	},
	{name: "policy", folder: "policy", path: "sigs.k8s.io/network-policy-api",
		tests: map[string]string{"policy.test": "sigs.k8s.io/network-policy-api/conformance"}},
}

// Builder builds programs.
type Builder struct {
	Modules string    // folder with the modules: tools/kubernetes
	Dir     string    // where programs go
	Out     io.Writer // told what happens
}

// Build builds what is missing or was made of something else. It leaves processors to others: two jobs at a time, of low priority.
func (b Builder) Build(ctx context.Context) error { return b.all(ctx, modules) }

// BuildSuites builds the tests of Kubernetes in the same way, and ginkgo, which runs them.
func (b Builder) BuildSuites(ctx context.Context) error { return b.all(ctx, suites) }

func (b Builder) all(ctx context.Context, list []module) error {
	if err := os.MkdirAll(b.Dir, 0o755); err != nil {
		return fmt.Errorf("build programs: %w", err)
	}
	for _, m := range list {
		if err := b.build(ctx, m); err != nil {
			return fmt.Errorf("build programs of %s: %w", m.path, err)
		}
	}
	return nil
}

func (b Builder) build(ctx context.Context, m module) error {
	version, err := b.about(ctx, m, "{{.Version}}")
	if err != nil {
		return err
	}
	flags := "-s -w " + m.linker(version)
	want, err := b.stamp(m, version, flags)
	if err != nil {
		return err
	}
	file := filepath.Join(b.Dir, m.name+".version")
	if b.current(m, file, want) {
		return nil
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	compile := func(all map[string]string, command ...string) error {
		for name, pkg := range all {
			_, _ = fmt.Fprintf(b.Out, "building %s %s\n", name, version)
			// nice(1) is the priority of what the compiler starts, too.
			args := append([]string{"-n", "10", "go"}, command...)
			if _, err := b.run(ctx, m, "nice", append(args, "-p", "2", "-trimpath", "-ldflags", flags, "-o", filepath.Join(b.Dir, name), pkg)...); err != nil {
				return err
			}
		}
		return nil
	}
	if err := errors.Join(compile(m.programs, "build"), compile(m.tests, "test", "-c")); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(want), 0o644)
}

// Source is where the sources of a module are on this machine, one that programs are built of, and which version they are.
func (b Builder) Source(ctx context.Context, path string) (dir, version string, err error) {
	for _, m := range slices.Concat(modules, suites) {
		if m.path == path {
			out, err := b.about(ctx, m, "{{.Dir}} {{.Version}}")
			dir, version, _ = strings.Cut(out, " ")
			return dir, version, err
		}
	}
	return "", "", fmt.Errorf("nothing is built of the module %s", path)
}

// about asks for a property of the module that a folder's programs come from.
func (b Builder) about(ctx context.Context, m module, format string) (string, error) {
	out, err := b.run(ctx, m, "go", "list", "-m", "-f", format, m.path)
	return strings.TrimSpace(out), err
}

// linker are the flags that tell programs their version.
func (m module) linker(version string) string {
	numbers := strings.Split(strings.TrimPrefix(version, "v"), ".")
	if len(numbers) < 2 {
		return ""
	}
	return strings.NewReplacer("%v", version, "%M", numbers[0], "%m", numbers[1]).Replace(m.version)
}

// stamp names all that decides about the bytes of a module's programs.
func (b Builder) stamp(m module, version, flags string) (string, error) {
	sum := sha256.New()
	_, _ = io.WriteString(sum, flags)
	for _, f := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(b.Modules, m.folder, f))
		if err != nil {
			return "", err
		}
		_, _ = sum.Write(text)
	}
	return fmt.Sprintf("%s %s %s %s/%s %s\n", m.path, version, runtime.Version(), runtime.GOOS, runtime.GOARCH, hex.EncodeToString(sum.Sum(nil)[:8])), nil
}

// current says whether the programs are there and made of what is wanted.
func (b Builder) current(m module, file, want string) bool {
	if got, err := os.ReadFile(file); err != nil || string(got) != want {
		return false
	}
	for _, all := range []map[string]string{m.programs, m.tests} {
		for name := range all {
			if _, err := os.Stat(filepath.Join(b.Dir, name)); err != nil {
				return false
			}
		}
	}
	return true
}

func (b Builder) run(ctx context.Context, m module, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = filepath.Join(b.Modules, m.folder)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOWORK=off")
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}
