// Package install puts Hypha on a Kubernetes cluster, brings it to another version and takes it away: the embedded chart by Helm's
// own library, so `helm` finds the release and may go on with it. It decides nothing that the chart could; it only finds out
// how the API server is reached where no kube-proxy serves its address.
package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/loader/archive"
	chartv2 "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/kube"
	release "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/storage/driver"

	"github.com/hypha-net/hypha/deploy/chart"
	"github.com/hypha-net/hypha/internal/version"
)

// Release is the name of the release, and Namespace where it is unless somebody says otherwise.
const (
	Release   = "cilium"
	Namespace = "kube-system"
)

// manager owns the fields of what is made here: the `helm` command's name for itself, so that each may upgrade what the other installed.
const manager = "helm"

// ErrNone says that there is no release to upgrade or uninstall.
var ErrNone = errors.New("nothing is installed there: install it first, or name its --namespace")

// Options say how.
type Options struct {
	Values  map[string]any
	Wait    bool
	Timeout time.Duration
	DryRun  bool // render only
	Reuse   bool // upgrade: the values of the present release stand where Values says nothing
}

// Installer works on the release of one namespace.
type Installer struct {
	cfg       *action.Configuration
	namespace string
}

// New is an Installer by a configuration of Helm's.
func New(cfg *action.Configuration, namespace string) *Installer {
	cfg.SetLogger(slog.DiscardHandler) // errors are returned
	kube.ManagedFieldsManager = manager
	return &Installer{cfg: cfg, namespace: namespace}
}

// load reads the embedded chart, as of this program's version.
func load() (*chartv2.Chart, error) {
	var files []*archive.BufferedFile
	err := fs.WalkDir(chart.Files, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := chart.Files.ReadFile(path)
		files = append(files, &archive.BufferedFile{Name: path, Data: b})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read chart: %w", err)
	}
	c, err := loader.LoadFiles(files)
	if err != nil {
		return nil, fmt.Errorf("read chart: %w", err)
	}
	if v := version.Version; v != "dev" {
		c.Metadata.AppVersion = v
	}
	return c, nil
}

func (o *Options) strategy() kube.WaitStrategy {
	if o.Wait {
		return kube.StatusWatcherStrategy
	}
	return kube.HookOnlyStrategy
}

// Install makes the release.
func (i *Installer) Install(ctx context.Context, o Options) (*release.Release, error) {
	c, err := load()
	if err != nil {
		return nil, err
	}
	in := action.NewInstall(i.cfg)
	in.ReleaseName, in.Namespace, in.WaitStrategy, in.Timeout = Release, i.namespace, o.strategy(), o.Timeout
	if o.DryRun {
		in.DryRunStrategy, in.KubeVersion = action.DryRunClient, &common.KubeVersion{Version: "v1.36.0", Major: "1", Minor: "36"}
	}
	r, err := in.RunWithContext(ctx, c, o.Values)
	if err != nil {
		return nil, fmt.Errorf("install: %w", err)
	}
	return r.(*release.Release), nil
}

// Upgrade brings the release to this program's chart.
func (i *Installer) Upgrade(ctx context.Context, o Options) (*release.Release, error) {
	c, err := load()
	if err != nil {
		return nil, err
	}
	up := action.NewUpgrade(i.cfg)
	up.Namespace, up.WaitStrategy, up.Timeout, up.ServerSideApply = i.namespace, o.strategy(), o.Timeout, "auto"
	// Who changed a field by hand since (`cilium config set`, kubectl edit) does not keep it from what the chart says.
	up.ForceConflicts = true
	// New values of a newer chart keep their defaults; what somebody chose for the release stays.
	up.ResetThenReuseValues, up.ResetValues = o.Reuse, !o.Reuse
	if o.DryRun {
		up.DryRunStrategy = action.DryRunClient
	}
	r, err := up.RunWithContext(ctx, Release, c, o.Values)
	switch {
	case errors.Is(err, driver.ErrReleaseNotFound), errors.Is(err, driver.ErrNoDeployedReleases):
		return nil, ErrNone
	case err != nil:
		return nil, fmt.Errorf("upgrade: %w", err)
	}
	return r.(*release.Release), nil
}

// Uninstall takes the CNI configuration off the nodes, and then the release away. With keep the first is left out: workloads
// that start before there is another network hear that the agent is away.
func (i *Installer) Uninstall(ctx context.Context, o Options, keep bool) error {
	r, err := i.release()
	if err != nil {
		return err
	}
	if !keep && !off(r) {
		// Agents read their options when they start.
		o.Values, o.Reuse, o.Wait = map[string]any{"cni": map[string]any{"uninstall": true}, "rollOutCiliumPods": true}, true, true
		if _, err := i.Upgrade(ctx, o); err != nil {
			return fmt.Errorf("have the agents take the CNI configuration away (--keep-cni leaves it there): %w", err)
		}
	}
	un := action.NewUninstall(i.cfg)
	un.WaitStrategy, un.Timeout, un.DeletionPropagation = o.strategy(), o.Timeout, "background"
	if _, err := un.Run(Release); err != nil {
		return fmt.Errorf("uninstall: %w", err)
	}
	return nil
}

func (i *Installer) release() (*release.Release, error) {
	r, err := action.NewGet(i.cfg).Run(Release)
	if errors.Is(err, driver.ErrReleaseNotFound) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("look for the release: %w", err)
	}
	return r.(*release.Release), nil
}

// off says whether the agents of a release take the CNI configuration away by themselves, or have none.
func off(r *release.Release) bool {
	cni, _ := r.Config["cni"].(map[string]any)
	return cni["install"] == false || cni["uninstall"] == true && r.Config["rollOutCiliumPods"] == true
}
