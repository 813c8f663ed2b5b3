package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Files of the certificate that an agent makes for itself, in its PKI directory.
const (
	CertFile = "hubble-server.crt"
	KeyFile  = "hubble-server.key"
)

const (
	certLife  = 365 * 24 * time.Hour
	certRenew = 30 * 24 * time.Hour // before the end
	clockLag  = 48 * time.Hour      // valid this long before now: clocks differ, and are set back when they were wrong
)

// TLSFiles are PEM files. Without Cert and Key the server uses a certificate of its own making; with ClientCA clients
// must show a certificate that it signed.
type TLSFiles struct{ Cert, Key, ClientCA string }

// TLSConfig makes the server's side of TLS, at least version 1.2. Certificate files are read again when they change.
// pki is the directory for a certificate of our own making, hosts the names and addresses in it.
func TLSConfig(files TLSFiles, pki string, hosts []string) (*tls.Config, error) {
	if (files.Cert == "") != (files.Key == "") {
		return nil, errors.New("flow server TLS: certificate and key are needed both or neither")
	}
	c := &certs{cert: files.Cert, key: files.Key}
	if c.cert == "" {
		c.cert, c.key, c.hosts = filepath.Join(pki, CertFile), filepath.Join(pki, KeyFile), hosts
	}
	if _, err := c.get(time.Now()); err != nil {
		return nil, err
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.get(time.Now()) }}
	if files.ClientCA != "" {
		raw, err := os.ReadFile(files.ClientCA)
		if err != nil {
			return nil, fmt.Errorf("read client CA: %w", err)
		}
		conf.ClientCAs = x509.NewCertPool()
		if !conf.ClientCAs.AppendCertsFromPEM(raw) {
			return nil, fmt.Errorf("read client CA %s: no certificate in it", files.ClientCA)
		}
		conf.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return conf, nil
}

// certs hands out a certificate and keeps it current.
type certs struct {
	cert, key string
	hosts     []string // of our own making; nil: files of somebody else

	mu     sync.Mutex
	loaded *tls.Certificate
	mtime  time.Time
}

func (c *certs) get(now time.Time) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	st, err := os.Stat(c.cert)
	if err == nil && c.loaded != nil && st.ModTime().Equal(c.mtime) && (c.hosts == nil || current(c.loaded, now)) {
		return c.loaded, nil
	}
	cert, err := tls.LoadX509KeyPair(c.cert, c.key)
	switch {
	case c.hosts == nil && err != nil && c.loaded != nil:
		return c.loaded, nil // somebody is just replacing the files
	case c.hosts == nil && err != nil:
		return nil, fmt.Errorf("load flow server certificate: %w", err)
	case c.hosts != nil && (err != nil || !current(&cert, now) || !covers(&cert, c.hosts)):
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			setAside(c.cert, c.key)
		}
		if err = c.issue(now); err != nil {
			return nil, err
		}
		if cert, err = tls.LoadX509KeyPair(c.cert, c.key); err != nil {
			return nil, fmt.Errorf("load flow server certificate: %w", err)
		}
	}
	if st, err = os.Stat(c.cert); err != nil {
		return nil, fmt.Errorf("load flow server certificate: %w", err)
	}
	c.loaded, c.mtime = &cert, st.ModTime()
	return c.loaded, nil
}

func current(c *tls.Certificate, now time.Time) bool {
	return c.Leaf != nil && now.After(c.Leaf.NotBefore) && now.Before(c.Leaf.NotAfter.Add(-certRenew))
}

func covers(c *tls.Certificate, hosts []string) bool {
	return !slices.ContainsFunc(hosts, func(h string) bool { return c.Leaf.VerifyHostname(h) != nil })
}

// setAside keeps damaged files for whoever wants to look at them.
func setAside(files ...string) {
	for _, f := range files {
		_ = os.Rename(f, f+".damaged") // it may be the one that is missing
	}
}

// issue makes a key and a certificate signed by itself.
func (c *certs) issue(now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make flow server key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return fmt.Errorf("make flow server certificate: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: c.hosts[0]},
		NotBefore: now.Add(-clockLag), NotAfter: now.Add(certLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, h := range c.hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return fmt.Errorf("make flow server certificate: %w", err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("make flow server key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(c.key), 0o700); err != nil {
		return fmt.Errorf("make flow server certificate: %w", err)
	}
	if err := replace(c.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), 0o600); err != nil {
		return err
	}
	return replace(c.cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// replace writes a file so that nobody ever sees half of it.
func replace(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name()) // gone already if all went well
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
