package cluster

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/hypha-net/hypha/test/kube/machine"
	"github.com/hypha-net/hypha/test/kube/pki"
)

// secrets are the authorities of a cluster. etcd has one of its own: who may talk to the API server must not write to its store.
type secrets struct {
	kubernetes *pki.Authority
	etcd       *pki.Authority
	front      *pki.Authority // of the API server as the client of aggregated ones
}

const pkiDir = "/etc/kubernetes/pki"

func newSecrets() (s secrets, err error) {
	var errs [3]error
	s.kubernetes, errs[0] = pki.NewAuthority("kubernetes")
	s.etcd, errs[1] = pki.NewAuthority("etcd")
	s.front, errs[2] = pki.NewAuthority("front-proxy")
	return s, errors.Join(errs[:]...)
}

// furnishControl makes the control plane's root directory, certificates and client configurations included.
func (c *Cluster) furnishControl(s secrets) error {
	root := c.path(control)
	if err := machine.Furnish(root, control); err != nil {
		return err
	}
	dir := filepath.Join(root, pkiDir)
	local := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
	service := "kubernetes.default.svc"
	api := append(c.addrs(controlHost), append(local, netip.MustParseAddr(apiVIP4), netip.MustParseAddr(apiVIP6))...)
	for name, issue := range map[string]func() (pki.Pair, error){
		"ca":             func() (pki.Pair, error) { return s.kubernetes.Pair(), nil },
		"etcd-ca":        func() (pki.Pair, error) { return s.etcd.Pair(), nil },
		"front-proxy-ca": func() (pki.Pair, error) { return s.front.Pair(), nil },
		"etcd":           func() (pki.Pair, error) { return s.etcd.Server("etcd", []string{"localhost"}, local) },
		"etcd-client":    func() (pki.Pair, error) { return s.etcd.Client("kube-apiserver") },
		"front-proxy":    func() (pki.Pair, error) { return s.front.Client("front-proxy") },
		"kubelet-client": func() (pki.Pair, error) {
			return s.kubernetes.Client("kube-apiserver-kubelet-client", "system:masters")
		},
		"apiserver": func() (pki.Pair, error) {
			return s.kubernetes.Server("kube-apiserver", []string{"localhost", "kubernetes", "kubernetes.default", service, service + ".cluster.local"}, api)
		},
	} {
		p, err := issue()
		if err == nil {
			err = p.Write(dir, name)
		}
		if err != nil {
			return err
		}
	}
	private, public, err := pki.TokenKeys()
	if err != nil {
		return err
	}
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "sa.key"), private, 0o600), os.WriteFile(filepath.Join(dir, "sa.pub"), public, 0o600)); err != nil {
		return err
	}
	for _, name := range []string{"kube-controller-manager", "kube-scheduler"} {
		if err := c.kubeconfig(s, filepath.Join(root, "etc/kubernetes", name+".conf"), "https://127.0.0.1:"+apiPort, "system:"+name); err != nil {
			return err
		}
	}
	return c.kubeconfig(s, c.Kubeconfig(), c.apiURL(), "kubernetes-admin", "system:masters")
}

// kubeconfig writes a client's configuration for a user.
func (c *Cluster) kubeconfig(s secrets, file, url, user string, groups ...string) error {
	client, err := s.kubernetes.Client(user, groups...)
	if err != nil {
		return err
	}
	b, err := pki.Kubeconfig(c.nsName("cluster"), url, user, s.kubernetes.Pair(), client)
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}

// both joins what belongs to the two families.
func (c *Cluster) both(four, six string) string {
	if c.DualStack {
		return four + "," + six
	}
	return four
}

// controlPrograms are those of the control plane. They wait for each other, and are started again when that takes them too long.
func (c *Cluster) controlPrograms() []machine.Program {
	file := func(name string) string { return filepath.Join(pkiDir, name) }
	const etcd, peer = "https://127.0.0.1:2379", "https://127.0.0.1:2380"
	services, pods := c.both(services4, services6), c.both(pods4, pods6)
	manager := []string{
		"kube-controller-manager", "--kubeconfig=/etc/kubernetes/kube-controller-manager.conf", "--leader-elect=false",
		"--use-service-account-credentials", "--service-account-private-key-file=" + file("sa.key"), "--root-ca-file=" + file("ca.crt"),
		"--cluster-signing-cert-file=" + file("ca.crt"), "--cluster-signing-key-file=" + file("ca.key"), "--controllers=*",
		"--allocate-node-cidrs", "--cluster-cidr=" + pods, "--service-cluster-ip-range=" + services,
	}
	return []machine.Program{
		// Nothing here outlives the machine, so nothing is lost by not waiting for its disk.
		{Name: "etcd", Args: []string{
			"etcd", "--name=control", "--data-dir=/var/lib/etcd", "--unsafe-no-fsync",
			"--listen-client-urls=" + etcd, "--advertise-client-urls=" + etcd,
			"--cert-file=" + file("etcd.crt"), "--key-file=" + file("etcd.key"), "--trusted-ca-file=" + file("etcd-ca.crt"), "--client-cert-auth",
			"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=control=" + peer,
			"--peer-cert-file=" + file("etcd.crt"), "--peer-key-file=" + file("etcd.key"), "--peer-trusted-ca-file=" + file("etcd-ca.crt"), "--peer-client-cert-auth",
		}},
		{Name: "kube-apiserver", Args: []string{
			"kube-apiserver", "--advertise-address=" + c.addrs(controlHost)[0].String(), "--secure-port=" + apiPort,
			"--etcd-servers=" + etcd, "--etcd-cafile=" + file("etcd-ca.crt"), "--etcd-certfile=" + file("etcd-client.crt"), "--etcd-keyfile=" + file("etcd-client.key"),
			"--tls-cert-file=" + file("apiserver.crt"), "--tls-private-key-file=" + file("apiserver.key"), "--client-ca-file=" + file("ca.crt"),
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--enable-bootstrap-token-auth", "--allow-privileged",
			"--service-cluster-ip-range=" + services, "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-account-key-file=" + file("sa.pub"), "--service-account-signing-key-file=" + file("sa.key"),
			"--kubelet-certificate-authority=" + file("ca.crt"), "--kubelet-client-certificate=" + file("kubelet-client.crt"),
			"--kubelet-client-key=" + file("kubelet-client.key"), "--kubelet-preferred-address-types=InternalIP",
			"--requestheader-client-ca-file=" + file("front-proxy-ca.crt"), "--requestheader-allowed-names=front-proxy",
			"--requestheader-extra-headers-prefix=X-Remote-Extra-", "--requestheader-group-headers=X-Remote-Group",
			"--requestheader-username-headers=X-Remote-User", "--proxy-client-cert-file=" + file("front-proxy.crt"),
			"--proxy-client-key-file=" + file("front-proxy.key"), "--enable-aggregator-routing",
		}},
		{Name: "kube-controller-manager", Args: manager},
		{Name: "kube-scheduler", Args: strings.Fields("kube-scheduler --kubeconfig=/etc/kubernetes/kube-scheduler.conf --leader-elect=false")},
	}
}
