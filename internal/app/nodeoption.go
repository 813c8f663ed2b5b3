package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/hypha-net/hypha/internal/config"
	"github.com/hypha-net/hypha/internal/fault"
	"github.com/hypha-net/hypha/internal/source/file"
	"github.com/hypha-net/hypha/internal/source/k8s"
	"github.com/hypha-net/hypha/internal/source/state"
)

// nodeOptionsCache has the options of the last run.
const nodeOptionsCache = "node-options.json"

// ForNode is the configuration with what CiliumNodeConfigs say of this node. While the API server does not answer it is that of the last
// run; an agent that has never run here waits, rather than begin with options that are not meant for its node.
func ForNode(ctx context.Context, l *config.Loaded, args []string, log *slog.Logger, level *slog.LevelVar) (*config.Loaded, error) {
	namespace := cmp.Or(l.Agent.Namespace, os.Getenv("CILIUM_K8S_NAMESPACE"))
	if !l.Agent.Kubernetes() || namespace == "" {
		return l, nil
	}
	dir := l.Agent.Paths().State
	if err := makeDirs(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, nodeOptionsCache)
	var had map[string]string
	err := file.ReadJSON(path, &had)
	known := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("options of this node of the last run not used", "err", err)
	}
	got, err := askNodeOptions(ctx, &l.Agent, namespace, known, log)
	switch {
	case err == nil && (!known || !maps.Equal(got, had)):
		if err := file.WriteJSON(path, got, 0o600); err != nil {
			log.Warn("options of this node not noted: a start without the API server will not know them", "err", err)
		}
	case err == nil:
	case known && errors.Is(err, state.ErrUnreachable):
		log.Warn("the API server tells no options of this node, keeping those of the last run", "err", err)
		got = had
	default:
		return nil, fmt.Errorf("find options of this node: %w", err)
	}
	if len(got) == 0 {
		return l, nil
	}
	log.Info("options of this node", "options", got)
	if l, err = config.LoadAgentFor(got, args, os.Environ); err == nil {
		setLevel(level, l.Agent.Debug)
	}
	return l, err
}

// askNodeOptions asks the API server: once for a moment where there is something to go by without it, else until it answers.
func askNodeOptions(ctx context.Context, cfg *config.Agent, namespace string, once bool, log *slog.Logger) (got map[string]string, err error) {
	ask := func() error {
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		got, err = k8s.NodeOptions(ctx, k8s.Config{NodeName: cfg.NodeName, Server: cfg.APIServer, Kubeconfig: cfg.Kubeconfig}, namespace)
		return err
	}
	if once {
		err = ask()
	} else {
		err = untilReached(ctx, fault.New(log, "waiting for the options of this node", "options of this node known"), ask)
	}
	return got, err
}
