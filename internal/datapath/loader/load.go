package loader

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sync/errgroup"

	"github.com/hypha-net/hypha/bpf/host"
	layout "github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/bpf/overlay"
	"github.com/hypha-net/hypha/bpf/pod"
	"github.com/hypha-net/hypha/bpf/sock"
	"github.com/hypha-net/hypha/bpf/xdp"
	"github.com/hypha-net/hypha/internal/netns"
)

// Config says where attachments are pinned and how.
type Config struct {
	Links    string // directory in bpffs; made if absent
	Programs string // directory in bpffs for the loaded programs, made if absent; "": they are not kept
	Options  Options
	Clsact   bool   // use clsact filters even where the kernel has tcx
	Fast     Fast   // how services are accelerated
	Cgroup   string // directory of the control group whose sockets find services; "": none's
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
	slow  map[int]error             // devices that cannot accelerate, by number, and why
	ids   map[string]ebpf.ProgramID // of progs: the kernel is asked once, not at every look at an attachment
	held  map[string]link.Link      // attached links, by pin
	kept  string                    // what the names of this loader's pinned programs begin with; "": none are pinned
	host  uint64                    // cookie of the node's network namespace, for programs of sockets
}

// New loads the programs. Nothing is attached yet, and what is attached stays as it is until Adopt or Attach*.
func New(cfg Config, deps Deps) (*Loader, error) {
	if err := os.MkdirAll(cfg.Links, 0o700); err != nil {
		return nil, fmt.Errorf("make link directory: %w", err)
	}
	l := &Loader{cfg: cfg, deps: deps, held: map[string]link.Link{}, slow: map[int]error{}}
	var err error
	if cfg.Cgroup != "" {
		if l.host, err = netns.Cookie(); err != nil {
			return nil, err
		}
	}
	l.progs, l.kept, err = l.obtain(cfg.Options)
	if err != nil {
		return nil, err
	}
	l.ids = programIDs(l.progs)
	return l, nil
}

// Reload loads the programs with other constants; Adopt then puts them in force.
func (l *Loader) Reload(o Options) error {
	progs, kept, err := l.obtain(o)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.progs
	l.progs, l.ids, l.kept, l.cfg.Options = progs, programIDs(progs), kept, o
	return closeAll(old)
}

// Close closes the descriptors; what is attached stays attached.
func (l *Loader) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := closeAll(l.progs)
	l.progs, l.ids = nil, nil
	for pin := range l.held {
		err = errors.Join(err, l.release(pin))
	}
	return err
}

// podObject is the object on workloads' pairs, sockObject that on sockets.
const (
	podObject  = "pod"
	sockObject = "sock"
)

type object struct {
	name string
	spec func() (*ebpf.CollectionSpec, error)
	code func() []byte
}

// objects are what is loaded.
func (l *Loader) objects() []object {
	all := []object{{podObject, pod.Spec, pod.Object}, {"overlay", overlay.Spec, overlay.Object}, {"host", host.Spec, host.Object},
		{"prefilter", xdp.PrefilterSpec, xdp.PrefilterObject}}
	if l.cfg.Fast != FastOff {
		all = append(all, object{"fast", xdp.FastSpec, xdp.FastObject})
	}
	if l.cfg.Cgroup != "" {
		all = append(all, object{sockObject, sock.Spec, sock.Object})
	}
	return all
}

// load brings all program objects into the kernel, or none. The verifier takes its time, so they go side by side.
func load(objects []object, constants func(object string) layout.Config, shared map[string]*ebpf.Map) (_ map[string]*ebpf.Program, err error) {
	var g errgroup.Group
	loaded := make([]map[string]*ebpf.Program, len(objects))
	for i, object := range objects {
		loaded[i] = map[string]*ebpf.Program{}
		g.Go(func() error {
			spec, err := object.spec()
			if err != nil {
				return fmt.Errorf("read program object %s: %w", object.name, err)
			}
			if err := loadObject(spec, constants(object.name), shared, loaded[i]); err != nil {
				return fmt.Errorf("load program object %s: %w", object.name, err)
			}
			return nil
		})
	}
	err = g.Wait()
	progs := map[string]*ebpf.Program{}
	for _, m := range loaded {
		maps.Copy(progs, m)
	}
	if err != nil {
		return nil, errors.Join(err, closeAll(progs))
	}
	return progs, nil
}

func loadObject(spec *ebpf.CollectionSpec, constants layout.Config, shared map[string]*ebpf.Map, progs map[string]*ebpf.Program) error {
	if v := spec.Variables[layout.ConfigVariable]; v != nil { // the prefilter is the same everywhere
		if err := v.Set(constants); err != nil {
			return fmt.Errorf("set constants: %w", err)
		}
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
