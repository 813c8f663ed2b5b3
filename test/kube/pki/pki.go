// Package pki makes the certificates, keys and client configurations of a Kubernetes cluster that lives for the length of a test.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// life is how long certificates are valid; they begin before now by slack, as clocks are set back at times.
const (
	life  = 10 * 365 * 24 * time.Hour
	slack = 48 * time.Hour
)

// Authority signs certificates.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pair Pair
}

// Pair is a certificate and its key, both PEM.
type Pair struct{ Cert, Key []byte }

// NewAuthority makes an authority of this name.
func NewAuthority(name string) (*Authority, error) {
	a := &Authority{}
	tmpl := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	var err error
	if a.pair, a.cert, a.key, err = sign(tmpl, nil, nil); err != nil {
		return nil, fmt.Errorf("make authority %s: %w", name, err)
	}
	return a, nil
}

// Pair is the authority's own.
func (a *Authority) Pair() Pair { return a.pair }

// Server makes a certificate for a server with these names and addresses. It may be used as a client's too, as members of an etcd do.
func (a *Authority) Server(name string, dns []string, addrs []netip.Addr) (Pair, error) {
	tmpl := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: dns, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, addr := range addrs {
		tmpl.IPAddresses = append(tmpl.IPAddresses, addr.AsSlice())
	}
	return a.leaf(tmpl)
}

// Client makes a certificate for a user of Kubernetes and the groups that they are in.
func (a *Authority) Client(user string, groups ...string) (Pair, error) {
	return a.leaf(&x509.Certificate{
		Subject: pkix.Name{CommonName: user, Organization: groups}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

func (a *Authority) leaf(tmpl *x509.Certificate) (Pair, error) {
	p, _, _, err := sign(tmpl, a.cert, a.key)
	if err != nil {
		return Pair{}, fmt.Errorf("make certificate of %s: %w", tmpl.Subject.CommonName, err)
	}
	return p, nil
}

// sign makes a key and its certificate; without a parent it signs itself.
func sign(tmpl, parent *x509.Certificate, signer *ecdsa.PrivateKey) (Pair, *x509.Certificate, *ecdsa.PrivateKey, error) {
	fail := func(err error) (Pair, *x509.Certificate, *ecdsa.PrivateKey, error) { return Pair{}, nil, nil, err }
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fail(err)
	}
	if tmpl.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126)); err != nil {
		return fail(err)
	}
	tmpl.NotBefore, tmpl.NotAfter = time.Now().Add(-slack), time.Now().Add(life)
	if parent == nil {
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		return fail(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return fail(err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return fail(err)
	}
	return Pair{Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), Key: keyPEM}, cert, key, nil
}

// TokenKeys makes the pair of keys that signs the tokens of service accounts, and checks them.
func TokenKeys() (private, public []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make keys of service accounts: %w", err)
	}
	if private, err = encodeKey(key); err != nil {
		return nil, nil, fmt.Errorf("make keys of service accounts: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, nil, fmt.Errorf("make keys of service accounts: %w", err)
	}
	return private, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

// Write writes the pair as <dir>/<name>.crt and <name>.key, for root alone.
func (p Pair) Write(dir, name string) error {
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = errors.Join(os.WriteFile(filepath.Join(dir, name+".crt"), p.Cert, 0o600), os.WriteFile(filepath.Join(dir, name+".key"), p.Key, 0o600))
	}
	if err != nil {
		return fmt.Errorf("write certificate %s: %w", name, err)
	}
	return nil
}
