package app

import (
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hypha-net/hypha/internal/control/prefilter"
	"github.com/hypha-net/hypha/internal/datapath/device"
	"github.com/hypha-net/hypha/internal/datapath/loader"
	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/datapath/pintest"
	dpprefilter "github.com/hypha-net/hypha/internal/datapath/prefilter"
	"github.com/hypha-net/hypha/internal/fault"
	"github.com/hypha-net/hypha/internal/testutil/netns"
)

// A list outlives its agent, by its file or, where that is damaged or gone, by what the kernel holds. A change that cannot be
// written down is none.
func TestDenialsRestore(t *testing.T) {
	bpf, dir := pintest.Dir(t), t.TempDir()
	log := slog.New(slog.DiscardHandler)
	netns.New(t, "node").In(func() error {
		m, err := maps.Open(maps.Config{Dir: filepath.Join(bpf, "maps"), CT: 4096, NAT: 4096, Ring: 4096}, maps.Deps{Log: log})
		if err != nil {
			return err
		}
		defer func() { _ = m.Close() }()
		l, err := loader.New(loader.Config{Links: filepath.Join(bpf, "links")}, loader.Deps{Log: log, Kernel: loader.Probe(), Maps: m.Replacements()})
		if err != nil {
			return err
		}
		defer func() { _ = l.Close() }()
		path := filepath.Join(dir, "prefilter.json")
		next := func() *denials {
			t.Helper()
			d := &denials{log: log, path: path, target: dpprefilter.New(dpprefilter.Config{}, dpprefilter.Deps{Maps: m, Loader: l}), devices: device.NewTable(), behind: fault.New(log, "", ""), list: prefilter.Empty()}
			if err := d.restore(); err != nil {
				t.Fatal(err)
			}
			return d
		}
		add := func(d *denials, cidr string) (uint64, error) {
			revision, _, err := d.change(func(l prefilter.List) (prefilter.List, int, error) {
				return l.Add(0, []netip.Prefix{netip.MustParsePrefix(cidr)})
			})
			return revision, err
		}
		check := func(d *denials, revision uint64, cidrs ...string) {
			t.Helper()
			list, err := d.current()
			if list.Revision != revision || !slices.Equal(texts(list.Deny), cidrs) || err != nil {
				t.Errorf("%+v, %v; want revision %d of %v", list, err, revision, cidrs)
			}
			held, deny, err := d.target.Held()
			if err != nil || held != 0 && held != revision || !slices.Equal(deny, list.Deny) {
				t.Errorf("the kernel holds revision %d of %v, %v", held, deny, err)
			}
		}
		d := next()
		check(d, 1)
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a file without anything to remember: %v", err)
		}
		for i, c := range []string{"192.0.2.0/24", "2001:db8::1/128"} {
			if revision, err := add(d, c); err != nil || revision != uint64(i+2) {
				t.Errorf("revision %d, %v", revision, err)
			}
		}
		want := []string{"192.0.2.0/24", "2001:db8::1/128"}
		check(d, 3, want...)
		check(next(), 3, want...)

		whole, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, cut := range []int{0, 1, len(whole) / 2, len(whole) - 10} {
			if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
				return err
			}
			check(next(), 3, want...)
			if aside, err := os.ReadFile(path + ".damaged"); err != nil || len(aside) != cut {
				t.Errorf("cut at %d: not set aside: %v", cut, err)
			}
			if again, err := os.ReadFile(path); err != nil || string(again) != string(whole) {
				t.Errorf("cut at %d: not made anew: %q, %v", cut, again, err)
			}
		}
		if err := os.Remove(path); err != nil {
			return err
		}
		check(next(), 3, want...)

		// The agent that wrote the file did not come to write the rows.
		if err := m.Deny(nil, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, nil); err != nil {
			return err
		}
		d = next()
		d.mu.Lock()
		err = d.sync()
		d.mu.Unlock()
		if err != nil {
			return err
		}
		check(d, 3, want...)

		d.path = filepath.Join(path, "below a file")
		if revision, err := add(d, "10.0.0.0/8"); err == nil || revision != 3 {
			t.Errorf("not written down, but revision %d, %v", revision, err)
		}
		check(d, 3, want...)
		return nil
	})
}
