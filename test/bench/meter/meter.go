// Package meter reads what processes take and what kernel maps hold.
package meter

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
)

// Memory is what a process has of it, in bytes.
type Memory struct{ RSS, Anon, Peak uint64 }

// String is for people.
func (m Memory) String() string {
	return fmt.Sprintf("%.0f MB (%.0f of them its own)", Mega(m.RSS), Mega(m.Anon))
}

// Mega is a number of bytes in MB.
func Mega(n uint64) float64 { return float64(n) / 1e6 }

// MemoryOf is what a process has now.
func MemoryOf(pid int) (m Memory, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 3 || f[2] != "kB" {
			continue
		}
		to := map[string]*uint64{"VmRSS:": &m.RSS, "RssAnon:": &m.Anon, "VmHWM:": &m.Peak}[f[0]]
		if to == nil {
			continue
		}
		n, err := strconv.ParseUint(f[1], 10, 64)
		if err != nil {
			return m, err
		}
		*to = n << 10
	}
	if m.RSS == 0 {
		return m, errors.New("the process's memory cannot be read")
	}
	return m, nil
}

// CPUOf is the CPU time of a process so far, in seconds.
func CPUOf(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(b), ") ") // the name may hold anything
	f := strings.Fields(rest)                   // state is field 3 of proc(5), utime 14, stime 15
	if !ok || len(f) < 13 {
		return 0, errors.New("the process's CPU time cannot be read")
	}
	user, uerr := strconv.ParseUint(f[11], 10, 64)
	sys, serr := strconv.ParseUint(f[12], 10, 64)
	const perSecond = 100 // USER_HZ, the same on all architectures
	return float64(user+sys) / perSecond, errors.Join(uerr, serr)
}

// MapBytes is the memory that the kernel charges for the maps pinned in a directory, event rings included, by map.
func MapBytes(dir string) (map[string]uint64, error) {
	pins, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	out := map[string]uint64{}
	for _, p := range pins {
		m, err := ebpf.LoadPinnedMap(filepath.Join(dir, p.Name()), &ebpf.LoadPinOptions{ReadOnly: true})
		if err != nil {
			return nil, fmt.Errorf("open map %s: %w", p.Name(), err)
		}
		n, err := charged(m)
		if err == nil && m.Type() == ebpf.ArrayOfMaps {
			var inner uint64
			inner, err = chargedInside(m)
			n += inner
		}
		if err := errors.Join(err, m.Close()); err != nil {
			return nil, err
		}
		out[p.Name()] = n
	}
	return out, nil
}

func charged(m *ebpf.Map) (uint64, error) {
	info, err := m.Info()
	if err != nil {
		return 0, err
	}
	n, _ := info.Memlock() // an empty trie takes nothing
	return n, nil
}

func chargedInside(outer *ebpf.Map) (sum uint64, err error) {
	var k uint32
	var id ebpf.MapID
	it := outer.Iterate()
	for it.Next(&k, &id) {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return 0, err
		}
		n, err := charged(m)
		if err := errors.Join(err, m.Close()); err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, it.Err()
}

// Rows counts the rows of a pinned hash map.
func Rows[K, V any](pin string) (n int, err error) {
	m, err := ebpf.LoadPinnedMap(pin, &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	ks, vs := make([]K, 4096), make([]V, 4096)
	var cur ebpf.MapBatchCursor
	for {
		got, err := m.BatchLookup(&cur, ks, vs, nil)
		n += got
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// Room is how many rows a pinned map can have.
func Room(pin string) (int, error) {
	m, err := ebpf.LoadPinnedMap(pin, &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return 0, err
	}
	return int(m.MaxEntries()), m.Close()
}
