// Package kubeapi runs a real API server and its etcd for a test, on loopback. The programs are those of bin/kube
// (HYPHA_KUBE_BIN names another directory); where they are not, tests are skipped.
package kubeapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/hypha-net/hypha/api/k8s/crd"
)

const token = "test"

// Server is an API server.
type Server struct {
	URL        string
	Kubeconfig string // file; who uses it may do everything
	Etcd       string // URL of its store

	dir, bin   string
	port, peer int
	etcd, api  *process
	dyn        *dynamic.DynamicClient
	rest       rest.Interface
}

// Start runs an API server until the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{bin: binaries(t), dir: t.TempDir()}
	for _, name := range []string{"etcd", "kube-apiserver"} {
		if _, err := os.Stat(filepath.Join(s.bin, name)); err != nil {
			t.Skipf("no %s in %s: make tools-kube builds it", name, s.bin)
		}
	}
	ports := freePorts(t, 3)
	s.port, s.peer = ports[0], ports[1]
	store := fmt.Sprintf("http://127.0.0.1:%d", ports[2])
	s.Etcd = store
	peers := fmt.Sprintf("http://127.0.0.1:%d", s.peer)
	s.etcd = s.run(t, "etcd", "--data-dir", filepath.Join(s.dir, "etcd"), "--listen-client-urls", store, "--advertise-client-urls", store,
		"--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", "default="+peers, "--unsafe-no-fsync")
	s.URL = fmt.Sprintf("https://127.0.0.1:%d", s.port)
	writeKey(t, filepath.Join(s.dir, "sa.key"))
	write(t, filepath.Join(s.dir, "tokens.csv"), token+",admin,admin,system:masters\n")
	s.startAPI(t, store)
	t.Cleanup(func() { s.api.stop(); s.etcd.stop() })
	s.Kubeconfig = filepath.Join(s.dir, "kubeconfig")
	write(t, s.Kubeconfig, fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: admin, user: {token: %s}}]
contexts: [{name: test, context: {cluster: test, user: admin}}]
current-context: test
`, s.URL, s.ca(), token))
	var err error
	conf := &rest.Config{Host: s.URL, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{CAFile: s.ca()}, QPS: -1}
	if s.dyn, err = dynamic.NewForConfig(conf); err != nil {
		t.Fatal(err)
	}
	conf.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	if s.rest, err = rest.UnversionedRESTClientFor(conf); err != nil {
		t.Fatal(err)
	}
	return s
}

// binaries is the directory of the programs: bin/kube of the project, wherever the test runs.
func binaries(t testing.TB) string {
	if dir := os.Getenv("HYPHA_KUBE_BIN"); dir != "" {
		return dir
	}
	_, self, _, ok := runtime.Caller(0)
	if !ok {
		t.Fatal("the test does not know where its source is")
	}
	return filepath.Join(filepath.Dir(self), "../../../bin/kube")
}

func (s *Server) ca() string { return filepath.Join(s.dir, "certs", "apiserver.crt") }

func (s *Server) startAPI(t testing.TB, store string) {
	t.Helper()
	s.api = s.run(t, "kube-apiserver", "--etcd-servers", store, "--cert-dir", filepath.Join(s.dir, "certs"), "--bind-address", "127.0.0.1",
		"--secure-port", fmt.Sprint(s.port), "--token-auth-file", filepath.Join(s.dir, "tokens.csv"), "--authorization-mode", "RBAC",
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", filepath.Join(s.dir, "sa.key"),
		"--service-account-signing-key-file", filepath.Join(s.dir, "sa.key"), "--disable-admission-plugins", "ServiceAccount",
		"--service-cluster-ip-range", "10.96.0.0/16,fd00:96::/112", "--endpoint-reconciler-type", "none")
	s.ready(t)
}

// ready waits until it serves.
func (s *Server) ready(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if s.api.ended() {
			break
		}
		if s.ask() == nil {
			return
		}
	}
	s.api.stop()
	t.Fatalf("API server does not serve: %v\n%s", s.ask(), s.api.tail())
}

func (s *Server) ask() error {
	pem, err := os.ReadFile(s.ca())
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequest(http.MethodGet, s.URL+"/readyz", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := (&http.Client{Transport: tr, Timeout: 2 * time.Second}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("readyz: %s", resp.Status)
	}
	return nil
}

// Stop ends the API server; what it stored is kept.
func (s *Server) Stop() { s.api.stop() }

// Again runs it again after Stop, where it was.
func (s *Server) Again(t testing.TB) {
	t.Helper()
	s.api = s.run(t, "kube-apiserver", s.api.args...)
	s.ready(t)
}

// Install makes the resources of api/k8s known, and waits until they can be used.
func (s *Server) Install(t testing.TB) {
	t.Helper()
	files, err := fs.Glob(crd.Files, "*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := crd.Files.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		s.Apply(t, string(text))
	}
	for _, f := range files {
		s.established(t, strings.TrimSuffix(strings.TrimPrefix(f, "cilium.io_"), ".yaml")+".cilium.io")
	}
}

// InstallClusterPolicy makes ClusterNetworkPolicy known, which not every cluster has.
func (s *Server) InstallClusterPolicy(t testing.TB) {
	t.Helper()
	s.Apply(t, clusterPolicy)
	s.established(t, "clusternetworkpolicies.policy.networking.k8s.io")
}

// clusterPolicy is not ours to define: its fields are whatever a test says.
const clusterPolicy = `{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: clusternetworkpolicies.policy.networking.k8s.io,
  annotations: {api-approved.kubernetes.io: "unapproved, for tests"}}, spec: {group: policy.networking.k8s.io, scope: Cluster,
  names: {kind: ClusterNetworkPolicy, listKind: ClusterNetworkPolicyList, plural: clusternetworkpolicies, singular: clusternetworkpolicy},
  versions: [{name: v1alpha2, served: true, storage: true, subresources: {status: {}},
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}}`

// established waits until the objects of a definition can be used.
func (s *Server) established(t testing.TB, name string) {
	t.Helper()
	Eventually(t, time.Minute, "CRD "+name, func() error {
		o, err := s.dyn.Resource(resourceOf("apiextensions.k8s.io/v1", "CustomResourceDefinition")).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		all, _, err := unstructured.NestedSlice(o.Object, "status", "conditions")
		for _, c := range all {
			if c, ok := c.(map[string]any); ok && c["type"] == "Established" && c["status"] == "True" {
				return nil
			}
		}
		return fmt.Errorf("not established: %w", err)
	})
}

// Apply makes objects be as the YAML documents say, status included where they have one. The error of the first that is refused
// ends the test.
func (s *Server) Apply(t testing.TB, text string) {
	t.Helper()
	if err := s.Try(t.Context(), text); err != nil {
		t.Fatal(err)
	}
}

// Try is Apply that returns the error.
func (s *Server) Try(ctx context.Context, text string) error {
	for doc := range strings.SplitSeq(text, "\n---\n") {
		if strings.TrimSpace(doc) == "" {
			continue
		}
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(doc), &o.Object); err != nil {
			return err
		}
		r := s.of(o)
		opts := metav1.ApplyOptions{FieldManager: "test", Force: true}
		if _, err := r.Apply(ctx, o.GetName(), o, opts); err != nil {
			return fmt.Errorf("apply %s %s: %w", o.GetKind(), o.GetName(), err)
		}
		if _, ok := o.Object["status"]; ok && o.GetKind() != "CiliumEndpoint" && o.GetKind() != "CustomResourceDefinition" {
			if _, err := r.ApplyStatus(ctx, o.GetName(), o, opts); err != nil {
				return fmt.Errorf("apply status of %s %s: %w", o.GetKind(), o.GetName(), err)
			}
		}
	}
	return nil
}

// Delete removes an object at once.
func (s *Server) Delete(t testing.TB, apiVersion, kind, namespace, name string) {
	t.Helper()
	now := int64(0)
	if err := s.resource(apiVersion, kind, namespace).Delete(t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Fatal(err)
	}
}

// Get reads an object.
func (s *Server) Get(t testing.TB, apiVersion, kind, namespace, name string) (*unstructured.Unstructured, error) {
	return s.resource(apiVersion, kind, namespace).Get(t.Context(), name, metav1.GetOptions{})
}

// List reads all objects of a kind.
func (s *Server) List(t testing.TB, apiVersion, kind string) *unstructured.UnstructuredList {
	t.Helper()
	l, err := s.resource(apiVersion, kind, "").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (s *Server) of(o *unstructured.Unstructured) dynamic.ResourceInterface {
	return s.resource(o.GetAPIVersion(), o.GetKind(), o.GetNamespace())
}

func (s *Server) resource(apiVersion, kind, namespace string) dynamic.ResourceInterface {
	r := s.dyn.Resource(resourceOf(apiVersion, kind))
	if namespace == "" {
		return r
	}
	return r.Namespace(namespace)
}

// resourceOf is where objects of a kind are.
func resourceOf(apiVersion, kind string) schema.GroupVersionResource {
	r, _ := meta.UnsafeGuessKindToResource(schema.FromAPIVersionAndKind(apiVersion, kind))
	return r
}

// Eventually waits until something is so, and ends the test when it takes too long.
func Eventually(t testing.TB, limit time.Duration, what string, check func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}
