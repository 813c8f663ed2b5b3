package loader

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	layout "github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/bpf/sock"
	"github.com/hypha-net/hypha/bpf/xdp"
)

// The verifier takes a second of CPU time over the programs, several when the node is busy: time in which a restarted
// agent enforces no change. So loaded programs are pinned, under names that begin with a digest of all they were made of,
// and an agent that would load the same ones takes those. bpffs is root's alone and does not outlive the kernel that
// verified them.

// obtain returns the programs for the options: those of an earlier agent where they are the same, else newly loaded ones.
// kept is what the names of their pins begin with, "" when they are not pinned.
func (l *Loader) obtain(o Options) (progs map[string]*ebpf.Program, kept string, err error) {
	constants := func(object string) layout.Config { return o.constants(object, l.deps.Kernel, l.host) }
	if l.cfg.Programs == "" {
		progs, err = load(l.objects(), constants, l.deps.Maps)
		return progs, "", err
	}
	if err := os.MkdirAll(l.cfg.Programs, 0o700); err != nil {
		return nil, "", fmt.Errorf("make program directory: %w", err)
	}
	if kept, err = digest(l.objects(), constants, l.deps.Maps); err != nil {
		return nil, "", err
	}
	if progs = l.pinned(kept); progs != nil {
		l.deps.Log.Debug("programs of an earlier agent taken", "digest", kept)
		return progs, kept, nil
	}
	if progs, err = load(l.objects(), constants, l.deps.Maps); err != nil {
		return nil, "", err
	}
	for name, p := range progs {
		pin := l.programPin(kept, name)
		if err := errors.Join(removePin(pin), p.Pin(pin)); err != nil { // a part of a set that was never completed goes
			l.deps.Log.Warn("Programs are not kept: the next start takes longer", "pin", pin, "error", err)
			break
		}
	}
	return progs, kept, nil
}

// pinned opens the set of programs with this digest; nil unless it is complete.
func (l *Loader) pinned(digest string) map[string]*ebpf.Program {
	progs := map[string]*ebpf.Program{}
	for _, name := range l.programNames() {
		p, err := ebpf.LoadPinnedProgram(l.programPin(digest, name), nil)
		if err == nil {
			progs[name] = p
			if typed(name, p.Type()) {
				continue
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			l.deps.Log.Warn("Loading programs anew: a pinned one does not open", "program", name, "error", err)
		}
		if err := closeAll(progs); err != nil {
			l.deps.Log.Warn("Pinned programs do not close", "error", err)
		}
		return nil
	}
	return progs
}

// forget removes the pins of programs that no device runs any more: all but the loader's own.
func (l *Loader) forget() {
	if l.cfg.Programs == "" {
		return
	}
	entries, err := os.ReadDir(l.cfg.Programs)
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), l.kept+"-") {
			err = errors.Join(err, removePin(filepath.Join(l.cfg.Programs, e.Name())))
		}
	}
	if err != nil {
		l.deps.Log.Warn("Old programs stay in memory", "error", err)
	}
}

func (l *Loader) programPin(digest, name string) string {
	return filepath.Join(l.cfg.Programs, digest+"-"+name)
}

// programNames are all programs that this loader needs.
func (l *Loader) programNames() (out []string) {
	for r, byHook := range programs {
		if r == Accelerated && l.cfg.Fast == FastOff {
			continue
		}
		out = slices.AppendSeq(out, maps.Values(byHook))
	}
	if l.cfg.Cgroup != "" {
		out = slices.AppendSeq(out, maps.Keys(sock.Hooks()))
	}
	return out
}

// typed says whether a program of this name has this type.
func typed(name string, t ebpf.ProgramType) bool {
	if _, ok := sock.Hooks()[name]; ok {
		return t == ebpf.CGroupSockAddr || t == ebpf.CGroupSock
	}
	switch name {
	case xdp.Prefilter, xdp.PrefilterL3, xdp.Fast:
		return t == ebpf.XDP
	}
	return t == ebpf.SchedCLS
}

// digest tells sets of programs apart by all that goes into them: the objects, the constants and the very maps.
func digest(objects []object, constants func(object string) layout.Config, shared map[string]*ebpf.Map) (string, error) {
	h := sha256.New()
	for _, object := range objects {
		sum := sha256.Sum256(object.code())
		h.Write(sum[:])
		if err := binary.Write(h, binary.NativeEndian, constants(object.name)); err != nil {
			return "", fmt.Errorf("digest constants: %w", err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(shared)) {
		info, err := shared[name].Info()
		if err != nil {
			return "", fmt.Errorf("look at map %s: %w", name, err)
		}
		id, ok := info.ID()
		if !ok {
			return "", fmt.Errorf("look at map %s: this kernel tells no number", name)
		}
		_, _ = fmt.Fprintf(h, "%s=%d\x00", name, id)
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}
