package kvstore

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hypha-net/hypha/internal/source/file"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

func TestConfigErrors(t *testing.T) {
	base := embedded(t, "node1")
	for want, change := range map[string]func(*Config){
		"node name":               func(c *Config) { c.NodeName = "" },
		"not a loopback address":  func(c *Config) { c.Local = "10.0.0.1:2379" },
		"loopback address with":   func(c *Config) { c.Local = "localhost" },
		"not served in the clear": func(c *Config) { c.Listen = []string{"http://10.0.0.1:2379"} },
		"not a name":              func(c *Config) { c.Listen = []string{"https://node1:2379"} },
		"want a URL":              func(c *Config) { c.Endpoints = []string{"10.0.0.1:2379"} },
		"for the embedded store":  func(c *Config) { c.Endpoints, c.Listen = []string{"http://10.0.0.1:1"}, []string{"https://10.0.0.1:1"} },
		"go together":             func(c *Config) { c.Endpoints, c.TLS.Cert = []string{"http://10.0.0.1:1"}, "x" },
		"at least 5s":             func(c *Config) { c.LeaseTTL = time.Second },
		"0..255":                  func(c *Config) { c.ClusterID = 256 },
		"no such file":            func(c *Config) { c.Endpoints, c.TLS.CA = []string{"https://10.0.0.1:1"}, "/none" },
		"longer than 107 bytes":   func(c *Config) { c.Paths.State = filepath.Join(c.Paths.State, strings.Repeat("x", 100)) },
	} {
		cfg := base
		change(&cfg)
		if s, err := Open(testContext(t), cfg, Deps{Log: testLog(t)}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
			if err == nil {
				_ = s.Close()
			}
		}
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, set := range []string{"etcd-local-address", "etcd-listen"} {
		cfg := embedded(t, "node1")
		if set == "etcd-listen" {
			cfg.Listen = []string{"https://" + l.Addr().String()}
		} else {
			cfg.Local = l.Addr().String()
		}
		_, err := Open(testContext(t), cfg, Deps{Log: testLog(t)})
		if err == nil || !strings.Contains(err.Error(), l.Addr().String()+" is in use") || !strings.Contains(err.Error(), set) {
			t.Errorf("%v", err)
		}
	}
}

func TestDataInUse(t *testing.T) {
	cfg := embedded(t, "node1")
	s := ready(t, open(t, cfg))
	began := time.Now()
	if _, err := Open(testContext(t), cfg, Deps{Log: testLog(t)}); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("%v", err)
	}
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("took %v to say so", d)
	}
	must[int64](t)(s.Set(testContext(t), "x", nil)) // and the first is none the worse
}

// A damaged store is set aside, not trusted, and the policies survive it.
func TestDamagedData(t *testing.T) {
	for _, what := range []string{"member/snap/db", "member/wal"} {
		t.Run(filepath.Base(what), func(t *testing.T) {
			cfg := embedded(t, "node1")
			s := ready(t, open(t, cfg))
			ctx := testContext(t)
			rev := must[uint64](t)(s.Policies().Import(ctx, []StoredPolicy{testPolicy("a", "1")}, nil))
			if err := s.Policies().WaitRevision(ctx, rev); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			root := filepath.Join(cfg.Paths.Etcd(), "data", what)
			err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				return os.WriteFile(path, []byte("nonsense"), 0o600)
			})
			if err != nil {
				t.Fatal(err)
			}
			s = ready(t, open(t, cfg))
			if _, err := os.Stat(filepath.Join(cfg.Paths.Etcd(), "data.damaged")); err != nil {
				t.Error(err)
			}
			if snap := s.Policies().Snapshot(); snap.Revision != rev || keysOf(rows(snap.Policies)) != "a" {
				t.Errorf("%+v", snap)
			}
		})
	}
}

// The embedded store lets in only those with its certificate; its sockets are out of others' reach.
func TestListeners(t *testing.T) {
	cfg := embedded(t, "node1")
	cfg.Local, cfg.Listen = freePort(t), []string{"https://" + freePort(t)}
	s := ready(t, open(t, cfg))
	files, ok := s.ClientFiles()
	if !ok {
		t.Fatal("no credentials")
	}
	for _, f := range []string{"ca.crt", "ca.key", "server.crt", "server.key", "client.crt", "client.key"} {
		info, err := os.Stat(filepath.Join(cfg.Paths.PKI(), f))
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v %v", f, info, err)
		}
	}
	info, err := os.Stat(cfg.Paths.Etcd())
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", info, err)
	}
	good := must[*tls.Config](t)(files.Client())
	foreign := must[*PKI](t)(OpenPKI(filepath.Join(shortDir(t), "pki")))
	must[bool](t)(foreign.Renew(nil))
	wrong := must[*tls.Config](t)(TLSFiles{CA: files.CA, Cert: foreign.Files().Cert, Key: foreign.Files().Key}.Client())
	none := &tls.Config{RootCAs: good.RootCAs}
	old := must[*tls.Config](t)(files.Client())
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	for _, addr := range []string{cfg.Local, strings.TrimPrefix(cfg.Listen[0], "https://")} {
		for name, c := range map[string]*tls.Config{"good": good, "wrong": wrong, "none": none, "old": old} {
			if err := handshake(addr, c); (err == nil) != (name == "good") {
				t.Errorf("%s with %s credentials: %v", addr, name, err)
			}
		}
		if c, err := net.Dial("tcp", addr); err == nil {
			_, _ = c.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
			_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
			buf := make([]byte, 64)
			if n, err := c.Read(buf); err == nil && n > 7 { // an alert is 7 bytes
				t.Errorf("%s answered in the clear: %q", addr, buf[:n])
			}
			_ = c.Close()
		}
	}
	// No abstract socket of ours: those are open to every user of the network namespace.
	data, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Skip(err)
	}
	if strings.Count(string(data), cfg.Paths.Etcd()) < 2 {
		t.Error("sockets are not where they should be")
	}
}

func handshake(addr string, cfg *tls.Config) error {
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 2 * time.Second}, Config: cfg}
	conn, err := d.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	// In TLS 1.3 a refused client learns of it at the first read.
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := conn.Write([]byte("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

func TestPKI(t *testing.T) {
	dir := filepath.Join(shortDir(t), "pki")
	host := netip.MustParseAddr("192.0.2.1")
	read := func(name string) string { return string(must[[]byte](t)(os.ReadFile(filepath.Join(dir, name)))) }
	p := must[*PKI](t)(OpenPKI(dir))
	if !must[bool](t)(p.Renew([]netip.Addr{host})) {
		t.Error("made nothing")
	}
	ca, server := read("ca.crt"), read("server.crt")

	p = must[*PKI](t)(OpenPKI(dir))
	if must[bool](t)(p.Renew([]netip.Addr{host})) || read("ca.crt") != ca || read("server.crt") != server {
		t.Error("not reused")
	}
	if !must[bool](t)(p.Renew([]netip.Addr{host, netip.MustParseAddr("2001:db8::1")})) || read("server.crt") == server {
		t.Error("another address, the same certificate")
	}
	// About to run out.
	tmpl := &x509.Certificate{NotAfter: time.Now().Add(leafLife / 4), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{host.AsSlice()}}
	if _, _, err := p.make("server", tmpl, p.caCert, p.caKey); err != nil {
		t.Fatal(err)
	}
	if server = read("server.crt"); !must[bool](t)(p.Renew([]netip.Addr{host})) || read("server.crt") == server {
		t.Error("not renewed")
	}
	// Damaged: a new pair, and what depends on it too.
	if err := file.Write(filepath.Join(dir, "ca.key"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	p = must[*PKI](t)(OpenPKI(dir))
	if !must[bool](t)(p.Renew([]netip.Addr{host})) || read("ca.crt") == ca {
		t.Error("a damaged authority was trusted")
	}
	cert := must[tls.Certificate](t)(tls.LoadX509KeyPair(filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")))
	if err := cert.Leaf.CheckSignatureFrom(p.caCert); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "ca.key.damaged")); errors.Is(err, fs.ErrNotExist) {
		t.Error("not set aside")
	}
}

// TestCVE_2024_28860_KeyPerNode: no two stores share a key, nor do the authority, the server and the clients of one.
func TestCVE_2024_28860_KeyPerNode(t *testing.T) {
	c := score.Start(t, "CVE-2024-28860", "keys of the authority, server and client certificates of several stores")
	const stores = 4
	seen := map[string]string{}
	for i := range stores {
		dir := filepath.Join(shortDir(t), fmt.Sprint("pki", i))
		must[bool](t)(must[*PKI](t)(OpenPKI(dir)).Renew([]netip.Addr{netip.MustParseAddr("192.0.2.1")}))
		for _, name := range []string{"ca", "server", "client"} {
			pair := must[tls.Certificate](t)(tls.LoadX509KeyPair(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")))
			key := string(pair.Leaf.RawSubjectPublicKeyInfo)
			if other := seen[key]; other != "" {
				t.Errorf("%s of store %d has the key of %s", name, i, other)
			}
			seen[key] = fmt.Sprintf("%s of store %d", name, i)
		}
	}
	c.Count(len(seen), "keys")
	c.Say("%d different", len(seen))
}

func TestReadEtcdConfig(t *testing.T) {
	path := filepath.Join(shortDir(t), "etcd.config")
	if err := os.WriteFile(path, []byte("endpoints:\n- https://10.0.0.1:2379\ntrusted-ca-file: /ca\ncert-file: /c\nkey-file: /k\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ep, files, err := ReadEtcdConfig(path)
	if err != nil || len(ep) != 1 || files != (TLSFiles{CA: "/ca", Cert: "/c", Key: "/k"}) {
		t.Error(ep, files, err)
	}
	if err := os.WriteFile(path, []byte("endpoint: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ReadEtcdConfig(path); err == nil {
		t.Error("an unknown field was accepted")
	}
}
