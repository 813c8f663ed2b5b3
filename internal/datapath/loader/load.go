package loader

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/hypha-net/hypha/bpf/host"
	layout "github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/bpf/overlay"
	"github.com/hypha-net/hypha/bpf/pod"
)

// Config says where attachments are pinned and how.
type Config struct {
	Links   string // directory in bpffs; made if absent
	Options Options
	Clsact  bool // use clsact filters even where the kernel has tcx
}

// Deps are what a loader needs from others.
type Deps struct {
	Log    *slog.Logger
	Kernel Kernel
	Maps   map[string]*ebpf.Map // by name: maps.Maps.Replacements
}

// Loader holds the loaded programs. Its methods are safe for concurrent use.
type Loader struct {
	cfg  Config
	deps Deps

	mu    sync.Mutex
	progs map[string]*ebpf.Program
}

// New loads the programs. Nothing is attached yet, and what is attached stays as it is until Adopt or Attach*.
func New(cfg Config, deps Deps) (*Loader, error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("lift the limit of locked memory: %w", err)
	}
	if err := os.MkdirAll(cfg.Links, 0o700); err != nil {
		return nil, fmt.Errorf("make link directory: %w", err)
	}
	progs, err := load(cfg.Options.constants(deps.Kernel.Peer), deps.Maps)
	if err != nil {
		return nil, err
	}
	return &Loader{cfg: cfg, deps: deps, progs: progs}, nil
}

// Reload loads the programs with other constants; Adopt then puts them in force.
func (l *Loader) Reload(o Options) error {
	progs, err := load(o.constants(l.deps.Kernel.Peer), l.deps.Maps)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.progs
	l.progs, l.cfg.Options = progs, o
	return closeAll(old)
}

// Close closes the descriptors; what is attached stays attached.
func (l *Loader) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := closeAll(l.progs)
	l.progs = nil
	return err
}

// load brings all program objects into the kernel, or none.
func load(constants layout.Config, shared map[string]*ebpf.Map) (_ map[string]*ebpf.Program, err error) {
	progs := map[string]*ebpf.Program{}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll(progs))
		}
	}()
	for _, object := range []struct {
		name string
		spec func() (*ebpf.CollectionSpec, error)
	}{{"pod", pod.Spec}, {"overlay", overlay.Spec}, {"host", host.Spec}} {
		spec, err := object.spec()
		if err != nil {
			return nil, fmt.Errorf("read program object %s: %w", object.name, err)
		}
		if err := loadObject(spec, constants, shared, progs); err != nil {
			return nil, fmt.Errorf("load program object %s: %w", object.name, err)
		}
	}
	return progs, nil
}

func loadObject(spec *ebpf.CollectionSpec, constants layout.Config, shared map[string]*ebpf.Map, progs map[string]*ebpf.Program) error {
	v := spec.Variables[layout.ConfigVariable]
	if v == nil {
		return fmt.Errorf("it has no variable %q", layout.ConfigVariable)
	}
	if err := v.Set(constants); err != nil {
		return fmt.Errorf("set constants: %w", err)
	}
	use := map[string]*ebpf.Map{}
	for name, ms := range spec.Maps {
		if m := shared[name]; m != nil { // declared sizes are defaults: the real ones are the map's
			ms.MaxEntries = m.MaxEntries()
			use[name] = m
		}
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: use})
	if err != nil {
		return err
	}
	defer coll.Close()
	for name := range coll.Programs {
		progs[name] = coll.DetachProgram(name)
	}
	return nil
}

func closeAll(progs map[string]*ebpf.Program) error {
	var failed error
	for _, p := range progs {
		failed = errors.Join(failed, p.Close())
	}
	return failed
}
