package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

	"github.com/hypha-net/hypha/test/kube/machine"
)

const (
	containerdSocket = "/run/containerd/containerd.sock"
	containerdConfig = "/etc/containerd/config.toml"
	runtimeProgram   = "/etc/containerd/runtime" // which /usr is not: it is the real machine's
	pluginDir        = "/opt/cni/bin"
	kubeletConfig    = "/etc/kubernetes/kubelet.yaml"
	kubeletClient    = "/etc/kubernetes/kubelet.conf"
)

// controlRole is the label and the taint of nodes that the control plane runs on.
const controlRole = "node-role.kubernetes.io/control-plane"

// PauseImage holds the namespaces of pods.
const PauseImage = "registry.k8s.io/pause:3.10.2"

// kubeletSettings are what kubelet sets in every kernel that it runs on. This machine's is not its to set.
var kubeletSettings = map[string]string{
	"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
	"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
}

// furnishNode adds what a node needs to the root directory of a machine.
func (c *Cluster) furnishNode(s secrets, n node) error {
	name, root, addrs := n.name, c.path(n.name), c.addrs(n.host)
	server, err := s.kubernetes.Server("system:node:"+name, []string{name}, addrs)
	if err != nil {
		return err
	}
	dir := filepath.Join(root, pkiDir)
	if err := errors.Join(server.Write(dir, "kubelet"), os.WriteFile(filepath.Join(dir, "ca.crt"), s.kubernetes.Pair().Cert, 0o644)); err != nil {
		return err
	}
	if err := c.kubeconfig(s, filepath.Join(root, kubeletClient), c.apiURL(), "system:node:"+name, "system:nodes"); err != nil {
		return err
	}
	kubelet, err := yaml.Marshal(c.kubelet(n))
	if err != nil {
		return err
	}
	for _, d := range []string{filepath.Dir(containerdConfig), "/etc/cni/net.d", pluginDir} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	loopback, err := os.ReadFile(filepath.Join(c.Programs, "loopback")) // which containerd calls before any other plugin
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(root, pluginDir, "loopback"), loopback, 0o755),
		os.WriteFile(filepath.Join(root, kubeletConfig), kubelet, 0o644),
		os.WriteFile(filepath.Join(root, containerdConfig), []byte(containerd(snapshotter(root))), 0o644),
		os.WriteFile(filepath.Join(root, runtimeProgram), []byte(runtime()), 0o755),
		os.WriteFile(filepath.Join(root, "etc", "resolv.conf"), []byte("nameserver "+c.addrs(routerHost)[0].String()+"\n"), 0o644),
	)
}

// kubelet is its configuration (kubelet.config.k8s.io/v1beta1).
func (c *Cluster) kubelet(n node) map[string]any {
	var taints []map[string]string
	if n.name == control {
		taints = append(taints, map[string]string{"key": controlRole, "effect": "NoSchedule"})
	}
	return map[string]any{
		"registerWithTaints": taints,
		"apiVersion":         "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false}, "webhook": map[string]any{"enabled": true},
			"x509": map[string]any{"clientCAFile": filepath.Join(pkiDir, "ca.crt")},
		},
		"authorization":            map[string]any{"mode": "Webhook"},
		"tlsCertFile":              filepath.Join(pkiDir, "kubelet.crt"),
		"tlsPrivateKeyFile":        filepath.Join(pkiDir, "kubelet.key"),
		"containerRuntimeEndpoint": "unix://" + containerdSocket,
		"cgroupDriver":             "cgroupfs",
		"failCgroupV1":             false,
		"failSwapOn":               false,
		"clusterDomain":            "cluster.local",
		"clusterDNS":               []string{dnsVIP4},
		"resolvConf":               "/etc/resolv.conf",
		"volumePluginDir":          "/var/lib/kubelet/plugins",
		// The disk is this machine's, and its fullness no matter of the test.
		"evictionHard":                map[string]string{"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
		"imageGCHighThresholdPercent": 100,
		"imageGCLowThresholdPercent":  99,
	}
}

// containerd is its configuration, version 2, which all releases since 1.3 take.
func containerd(snapshotter string) string {
	return fmt.Sprintf(`version = 2
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
address = %q

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = %q
restrict_oom_score_adj = true # not everybody may make processes less likely to be killed

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/opt/cni/bin"
conf_dir = "/etc/cni/net.d"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = %q
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
BinaryName = %q
`, containerdSocket, PauseImage, snapshotter, runtimeProgram)
}

// runtime starts containers. A machine may withhold CAP_SYS_RESOURCE, which no container can be given then; a node of a real
// cluster has it, so that workloads ask for it.
func runtime() string {
	if held, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SYS_RESOURCE, 0, 0, 0); err != nil || held == 1 {
		return "#!/bin/sh\nexec runc \"$@\"\n"
	}
	return `#!/bin/sh
for arg; do
	case $before in
	--bundle) file=$arg/config.json ;;
	--process) file=$arg ;; # of kubectl exec
	*) file= ;;
	esac
	[ -z "$file" ] || sed -i 's/,"CAP_SYS_RESOURCE"//g; s/"CAP_SYS_RESOURCE",\{0,1\}//g' "$file"
	before=$arg
done
exec runc "$@"
`
}

// snapshotter is how containers get their files: layers over each other, or copies where the file system takes no layers.
func snapshotter(root string) string {
	dir := filepath.Join(root, "tmp", "overlay")
	var opts []string
	for _, d := range []string{"lowerdir", "upperdir", "workdir", "merged"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return "native"
		}
		if d != "merged" {
			opts = append(opts, d+"="+filepath.Join(dir, d))
		}
	}
	defer func() { _ = os.RemoveAll(dir) }()
	merged := filepath.Join(dir, "merged")
	if err := unix.Mount("overlay", merged, "overlay", 0, strings.Join(opts, ",")); err != nil {
		return "native"
	}
	if err := unix.Unmount(merged, 0); err != nil {
		return "native"
	}
	return "overlayfs"
}

func (c *Cluster) nodePrograms(n node) []machine.Program {
	var ips []string
	for _, a := range c.addrs(n.host) {
		ips = append(ips, a.String())
	}
	return []machine.Program{
		{Name: "containerd", Args: []string{"containerd", "--config", containerdConfig}},
		{Name: "kubelet", Args: []string{
			"kubelet", "--config=" + kubeletConfig, "--kubeconfig=" + kubeletClient, "--hostname-override=" + n.name, "--node-ip=" + strings.Join(ips, ","),
		}},
	}
}
