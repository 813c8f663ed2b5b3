package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// Attachment is what the CNI plugin is told about a pod.
type Attachment struct {
	CNI         string // the plugin's binary
	StateDir    string // of the node's agent
	Node        string
	ContainerID string
	NetNS       string // path
	IfName      string // default eth0
	Pod         string
	Namespace   string
	Labels      []string     // key=value
	Ports       []string     // that policies may name: http:80/tcp
	Addrs       []netip.Addr // wished, at most one of each IP version
}

// Add attaches the pod and returns its addresses, IPv4 first. A failure that the plugin explains is a *types.Error.
func (a Attachment) Add(ctx context.Context) ([]netip.Addr, error) {
	out, err := a.run(ctx, "ADD")
	if err != nil {
		return nil, err
	}
	var res types100.Result
	if err := json.Unmarshal(out, &res); err != nil {
		return nil, fmt.Errorf("attach pod %s: read the plugin's result: %w", a.Pod, err)
	}
	var addrs []netip.Addr
	for _, ip := range res.IPs {
		if addr, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			addrs = append(addrs, addr.Unmap())
		}
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("attach pod %s: the plugin's result holds no address", a.Pod)
	}
	return addrs, nil
}

// Del detaches the pod; it is no error when it was not attached.
func (a Attachment) Del(ctx context.Context) error { _, err := a.run(ctx, "DEL"); return err }

// Config is the plugin's network configuration.
func (a Attachment) Config() []byte {
	b, err := json.Marshal(map[string]any{
		"cniVersion": "1.1.0", "name": "hypha", "type": "hypha-cni", "stateDir": a.StateDir, "nodeName": a.Node,
	})
	if err != nil {
		panic(err) // strings always marshal
	}
	return b
}

// Env is the plugin's environment for a command.
func (a Attachment) Env(command string) []string {
	ifName := a.IfName
	if ifName == "" {
		ifName = "eth0"
	}
	args := "IgnoreUnknown=1;K8S_POD_NAMESPACE=" + a.Namespace + ";K8S_POD_NAME=" + a.Pod
	if len(a.Labels) > 0 {
		args += ";HYPHA_LABELS=" + strings.Join(a.Labels, ",")
	}
	if len(a.Ports) > 0 {
		args += ";HYPHA_NAMED_PORTS=" + strings.Join(a.Ports, ",")
	}
	if len(a.Addrs) > 0 {
		var ips []string
		for _, ip := range a.Addrs {
			ips = append(ips, ip.String())
		}
		args += ";IP=" + strings.Join(ips, ",")
	}
	return []string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + a.ContainerID, "CNI_NETNS=" + a.NetNS, "CNI_IFNAME=" + ifName,
		"CNI_PATH=/", "CNI_ARGS=" + args,
	}
}

func (a Attachment) run(ctx context.Context, command string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, a.CNI)
	cmd.Env = a.Env(command)
	cmd.Stdin = bytes.NewReader(a.Config())
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		var said types.Error
		if json.Unmarshal(out.Bytes(), &said) == nil && said.Msg != "" {
			return nil, fmt.Errorf("CNI %s of pod %s: %w", command, a.Pod, &said)
		}
		return nil, fmt.Errorf("CNI %s of pod %s: %w: %s", command, a.Pod, err, strings.TrimSpace(errOut.String()+out.String()))
	}
	return out.Bytes(), nil
}
