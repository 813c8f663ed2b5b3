package kvstore

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
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hypha-net/hypha/internal/source/file"
)

const (
	caLife   = 10 * 365 * 24 * time.Hour
	leafLife = 365 * 24 * time.Hour
	clockLag = 48 * time.Hour // certificates are valid this long before now: nodes' clocks differ, and are set back when they were wrong
)

// PKI is the certificate authority an agent makes for its own store, in one directory: ca.crt, ca.key, server.crt,
// server.key, client.crt, client.key, all 0600. Another node gets ca.crt, client.crt and client.key, nothing else.
type PKI struct {
	dir    string
	now    func() time.Time
	caCert *x509.Certificate
	caKey  *ecdsa.PrivateKey
}

// OpenPKI loads the authority in dir, or makes one. A certificate that has been damaged is set aside and made anew,
// the authority included; nodes that held the old one have to be given the new one.
func OpenPKI(dir string) (*PKI, error) { return openPKI(dir, time.Now) }

func openPKI(dir string, now func() time.Time) (*PKI, error) {
	p := &PKI{dir: dir, now: now}
	cert, key, err := p.load("ca")
	if errors.Is(err, fs.ErrNotExist) || err == nil && cert.NotAfter.Sub(p.now()) < caLife/10 {
		cert, key, err = p.make("ca", &x509.Certificate{
			Subject:               pkix.Name{CommonName: "hypha store CA"},
			NotAfter:              p.now().Add(caLife),
			IsCA:                  true,
			BasicConstraintsValid: true,
			MaxPathLenZero:        true,
			KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}, nil, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("open certificate authority: %w", err)
	}
	p.caCert, p.caKey = cert, key
	return p, nil
}

// Renew makes the server's and the client's certificate where they are missing, run out within a third of their life, are of a
// time that has not come, are of another authority or, for the server, do not cover all hosts. It returns whether it wrote any.
func (p *PKI) Renew(hosts []netip.Addr) (bool, error) {
	server, err := p.renew("server", x509.ExtKeyUsageServerAuth, hosts)
	if err != nil {
		return false, fmt.Errorf("renew server certificate: %w", err)
	}
	client, err := p.renew("client", x509.ExtKeyUsageClientAuth, nil)
	if err != nil {
		return server, fmt.Errorf("renew client certificate: %w", err)
	}
	return server || client, nil
}

func (p *PKI) renew(name string, use x509.ExtKeyUsage, hosts []netip.Addr) (bool, error) {
	cert, _, err := p.load(name)
	if err == nil && cert.NotAfter.Sub(p.now()) > leafLife/3 && !p.now().Before(cert.NotBefore) && covers(cert, hosts) && cert.CheckSignatureFrom(p.caCert) == nil {
		return false, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	tmpl := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "hypha store " + name},
		NotAfter:    p.now().Add(leafLife),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{use},
	}
	if len(hosts) > 0 {
		tmpl.DNSNames = []string{"localhost"}
	}
	for _, h := range hosts {
		tmpl.IPAddresses = append(tmpl.IPAddresses, h.AsSlice())
	}
	_, _, err = p.make(name, tmpl, p.caCert, p.caKey)
	return true, err
}

func covers(cert *x509.Certificate, hosts []netip.Addr) bool {
	for _, h := range hosts {
		if !slices.ContainsFunc(cert.IPAddresses, net.IP(h.AsSlice()).Equal) {
			return false
		}
	}
	return true
}

// Files are the credentials of a client of this store.
func (p *PKI) Files() TLSFiles {
	return TLSFiles{CA: p.path("ca.crt"), Cert: p.path("client.crt"), Key: p.path("client.key")}
}

func (p *PKI) path(name string) string { return filepath.Join(p.dir, name) }

// load reads a pair. A pair that does not parse or does not belong together is set aside and counts as missing.
func (p *PKI) load(name string) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	pair, err := tls.LoadX509KeyPair(p.path(name+".crt"), p.path(name+".key"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	if err == nil {
		if key, ok := pair.PrivateKey.(*ecdsa.PrivateKey); ok {
			return pair.Leaf, key, nil
		}
		err = errors.New("not an ECDSA key")
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok { // cannot be read, which says nothing about its content
		return nil, nil, err
	}
	for _, f := range []string{name + ".crt", name + ".key"} {
		var damaged *file.DamagedError
		if errors.As(file.SetAside(p.path(f), err), &damaged) && damaged.Aside == "" {
			return nil, nil, damaged
		}
	}
	return nil, nil, fs.ErrNotExist
}

// make writes a new pair; without a parent it is its own.
func (p *PKI) make(name string, tmpl, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	tmpl.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, nil, err
	}
	tmpl.NotBefore = p.now().Add(-clockLag)
	if parent == nil {
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	pk, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return nil, nil, err
	}
	// The key first: a crash in between leaves a pair that does not match, which load sets aside.
	if err := file.Write(p.path(name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pk}), 0o600); err != nil {
		return nil, nil, err
	}
	if err := file.Write(p.path(name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		return nil, nil, err
	}
	return cert, key, nil
}

// Client is the TLS configuration of a client with these credentials, for TLS 1.2 or better. The client's pair is read
// again for every connection, so a renewed one is used without a restart.
func (f TLSFiles) Client() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: f.ServerName}
	if f.CA != "" {
		data, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, fmt.Errorf("read etcd CA: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("read etcd CA: no certificate in %s", f.CA)
		}
	}
	if f.Cert != "" {
		load := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
			if err != nil {
				return nil, fmt.Errorf("read etcd client certificate: %w", err)
			}
			return &pair, nil
		}
		if _, err := load(); err != nil {
			return nil, err
		}
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return cfg, nil
}
