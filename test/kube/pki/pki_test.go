package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// serve is a server of the authority that names who asks.
func serve(t *testing.T, a *Authority) *httptest.Server {
	t.Helper()
	server := must(a.Server("server", []string{"kubernetes"}, []netip.Addr{netip.MustParseAddr("127.0.0.1")}))(t)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := r.TLS.PeerCertificates[0].Subject
		_, _ = io.WriteString(w, who.CommonName+" "+strings.Join(who.Organization, ","))
	}))
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(a.Pair().Cert)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{must(tls.X509KeyPair(server.Cert, server.Key))(t)}, ClientCAs: clients,
		ClientAuth: tls.RequireAndVerifyClientCert}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func get(t *testing.T, url string, roots []byte, client Pair) (string, error) {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		t.Fatal("no certificate of an authority")
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool,
		Certificates: []tls.Certificate{must(tls.X509KeyPair(client.Cert, client.Key))(t)}}}}
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// TestKubeconfig reads what Kubeconfig wrote and asks a real server with it.
func TestKubeconfig(t *testing.T) {
	a := must(NewAuthority("test"))(t)
	s := serve(t, a)
	client := must(a.Client("system:node:node1", "system:nodes"))(t)
	text := must(Kubeconfig("kube", s.URL, "node1", a.Pair(), client))(t)
	var c struct {
		CurrentContext string `json:"current-context"`
		Contexts       []struct {
			Name    string
			Context struct{ Cluster, User string }
		}
		Clusters []struct {
			Name    string
			Cluster struct {
				Server string
				CA     string `json:"certificate-authority-data"`
			}
		}
		Users []struct {
			Name string
			User struct {
				Cert string `json:"client-certificate-data"`
				Key  string `json:"client-key-data"`
			}
		}
	}
	if err := yaml.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	if c.CurrentContext != "kube" || c.Contexts[0].Name != "kube" || c.Contexts[0].Context.Cluster != c.Clusters[0].Name ||
		c.Contexts[0].Context.User != c.Users[0].Name {
		t.Fatalf("names do not fit:\n%s", text)
	}
	b64 := base64.StdEncoding.DecodeString
	got, err := get(t, c.Clusters[0].Cluster.Server, must(b64(c.Clusters[0].Cluster.CA))(t),
		Pair{Cert: must(b64(c.Users[0].User.Cert))(t), Key: must(b64(c.Users[0].User.Key))(t)})
	if err != nil || got != "system:node:node1 system:nodes" {
		t.Fatalf("%q %v", got, err)
	}
}

func TestOtherAuthority(t *testing.T) {
	a, b := must(NewAuthority("test"))(t), must(NewAuthority("test"))(t)
	s := serve(t, a)
	stranger, friend := must(b.Client("admin", "system:masters"))(t), must(a.Client("admin"))(t)
	if _, err := get(t, s.URL, a.Pair().Cert, stranger); err == nil {
		t.Error("a client of another authority was let in")
	}
	if _, err := get(t, s.URL, b.Pair().Cert, friend); err == nil {
		t.Error("a server of another authority was believed")
	}
}

func TestServerNames(t *testing.T) {
	a := must(NewAuthority("test"))(t)
	p := must(a.Server("x", []string{"kubernetes.default.svc"}, []netip.Addr{netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("fd00::1")}))(t)
	block, _ := pem.Decode(p.Cert)
	cert := must(x509.ParseCertificate(block.Bytes))(t)
	for _, name := range []string{"kubernetes.default.svc", "10.96.0.1", "fd00::1"} {
		if err := cert.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	if cert.VerifyHostname("10.96.0.2") == nil || cert.IsCA || !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageClientAuth) {
		t.Error("the certificate says too much or too little")
	}
}

func TestTokenKeys(t *testing.T) {
	private, public, err := TokenKeys()
	if err != nil {
		t.Fatal(err)
	}
	pb, _ := pem.Decode(private)
	key := must(x509.ParseECPrivateKey(pb.Bytes))(t)
	ub, _ := pem.Decode(public)
	if !key.PublicKey.Equal(must(x509.ParsePKIXPublicKey(ub.Bytes))(t)) {
		t.Error("the keys are not a pair")
	}
}

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	if err := must(NewAuthority("test"))(t).Pair().Write(dir, "ca"); err != nil {
		t.Fatal(err)
	}
	if _, err := tls.LoadX509KeyPair(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	if st := must(os.Stat(filepath.Join(dir, "ca.key")))(t); st.Mode().Perm() != 0o600 {
		t.Errorf("the key is for %v", st.Mode())
	}
}
