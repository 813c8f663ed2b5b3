package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// mount lays a directory out as the kubelet does: links through ..data to the version in force.
func mount(t *testing.T, values map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	version := filepath.Join(dir, "..2026_01_01")
	if err := os.Mkdir(version, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("..2026_01_01", filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	for name, v := range values {
		if err := os.WriteFile(filepath.Join(version, name), []byte(v), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestDirectory(t *testing.T) {
	dir := mount(t, map[string]string{
		"cluster-name": "from-dir\n", "tunnel-port": "8473", "devices": "eth0,eth1", "kvstore-lease-ttl": "30s", "enable-ipv6": "false",
		"mtu": "1400", "node-name": "from-dir", "nodes-gc": "5m", "nodes-gc-interval": "5m", "cluster-nam": "x",
	})
	file := write(t, "node-name: from-file\n")
	l, err := LoadAgent([]string{"--config-dir", dir, "--config", file, "--mtu=1300"}, func() []string { return []string{"HYPHA_DEVICES=eth2"} })
	if err != nil {
		t.Fatal(err)
	}
	a := l.Agent
	if a.ClusterName != "from-dir" || a.TunnelPort != 8473 || a.LeaseTTL.Seconds() != 30 || a.EnableIPv6 || a.MTU != 1300 || a.NodeName != "from-file" ||
		strings.Join(a.Devices, " ") != "eth2" {
		t.Errorf("options: %+v", a)
	}
	if d := cmp.Diff([]string{
		dir + `: unknown option "cluster-nam"; did you mean "cluster-name"?`, dir + `: unknown option "nodes-gc"; did you mean "node-ip"?`,
	}, l.Warnings); d != "" {
		t.Error(d)
	}
	for _, o := range l.Options {
		if want := map[string]string{"cluster-name": "directory", "node-name": "file", "devices": "environment", "mtu": "flag"}[o.Name]; want != "" && want != o.Source {
			t.Errorf("%s comes from %s, want %s", o.Name, o.Source, want)
		}
	}
}

func TestDirectoryRefused(t *testing.T) {
	for name, values := range map[string]map[string]string{
		`option tunnel-port: "many" is no uint16`: {"tunnel-port": "many"},
		"none of tunnel, native":                  {"routing-mode": "direct"},
	} {
		if _, err := LoadAgent([]string{"--config-dir", mount(t, values)}, none); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %q", err, name)
		}
	}
}
