package cni

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/containernetworking/cni/pkg/ns"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/endpoint/pending"
)

func (p *plugin) add(args *skel.CmdArgs) (err error) {
	c, a, end, err := begin("ADD", args)
	if err != nil {
		return err
	}
	defer func() { end(err) }()
	req, invalid, err := addRequest(c, args)
	if err != nil {
		return err
	}
	if err := checkNetNS(args); err != nil {
		return err
	}
	ctx, cancel := timeout()
	defer cancel()
	resp, err := a.admin().AddEndpoint(ctx, connect.NewRequest(req))
	if err != nil {
		if ctx.Err() != nil { // the agent may be just done: it is told that nobody waits for it any more
			_ = a.note(args)
		}
		return fail("attach workload", err, invalid)
	}
	p.undo = func() { _ = a.delete(args) }
	res, err := result(args, resp.Msg)
	if err != nil {
		return types.NewError(types.ErrInternal, "read the agent's answer: "+err.Error(), "")
	}
	out, err := res.GetAsVersion(c.CNIVersion)
	if err != nil {
		return types.NewError(types.ErrIncompatibleCNIVersion, err.Error(), "")
	}
	var buf bytes.Buffer
	if err := out.PrintTo(&buf); err != nil {
		return types.NewError(types.ErrInternal, err.Error(), "")
	}
	p.result = buf.Bytes()
	return nil
}

// addRequest is what the runtime asks for, in the agent's terms. invalid is the code for what the agent calls invalid.
func addRequest(c *conf, args *skel.CmdArgs) (req *agentv1.AddEndpointRequest, invalid uint, err error) {
	if len(c.RawPrevResult) > 0 {
		return nil, 0, types.NewError(types.ErrUnsupportedField,
			"network configuration: prevResult: hypha-cni makes the interface itself, so it must be the first plugin of the list", "")
	}
	ca, err := parseArgs(args.Args)
	if err != nil {
		return nil, 0, err
	}
	v4, v6, err := c.wishes(ca.ip)
	if err != nil {
		return nil, 0, err
	}
	mac := c.RuntimeConfig.MAC
	if ca.mac != "" {
		mac = ca.mac
	}
	invalid = types.ErrInvalidNetworkConfig
	if args.Args != "" {
		invalid = types.ErrInvalidEnvironmentVariables
	}
	return &agentv1.AddEndpointRequest{
		ContainerId: args.ContainerID, Netns: filepath.Clean(args.Netns), Interface: args.IfName, Network: c.Name,
		Name: ca.name, Namespace: ca.namespace, Labels: merge(c.Args.Labels, c.Args.CNI.Labels, ca.labels), NamedPorts: ca.ports,
		Mac: mac, Ipv4: v4, Ipv6: v6, Mtu: uint32(c.MTU),
	}, invalid, nil
}

// merge joins lists of labels; a later list wins over an earlier one with the same key.
func merge(lists ...[]string) []string {
	var out []string
	for _, list := range lists {
		earlier := len(out)
		for _, l := range list {
			key, _, _ := strings.Cut(l, "=")
			for i := 0; i < earlier; i++ {
				if k, _, _ := strings.Cut(out[i], "="); k == key {
					out = slices.Delete(out, i, i+1)
					earlier, i = earlier-1, i-1
				}
			}
			out = append(out, l)
		}
	}
	return out
}

// checkNetNS refuses a network namespace that is not there, is none, or is the plugin's own.
func checkNetNS(args *skel.CmdArgs) error {
	if !filepath.IsAbs(args.Netns) || strings.ContainsFunc(args.Netns, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return types.NewError(types.ErrInvalidEnvironmentVariables, fmt.Sprintf("CNI_NETNS: %q is not an absolute path", args.Netns), "")
	}
	if _, err := os.Stat(args.Netns); err != nil {
		return types.NewError(types.ErrUnknownContainer, "CNI_NETNS: no such network namespace: "+err.Error(), "")
	}
	same, cerr := ns.CheckNetNS(args.Netns)
	if cerr != nil {
		return cerr
	}
	if same {
		return types.NewError(types.ErrInvalidNetNS, fmt.Sprintf("CNI_NETNS: %s is the host's own network namespace", args.Netns), "")
	}
	return nil
}

// note leaves word for the agent that an attachment is gone.
func (a *agent) note(args *skel.CmdArgs) error {
	if _, err := os.Stat(filepath.Dir(a.pending)); os.IsNotExist(err) {
		return nil // no agent was ever here: there is nothing to clean up
	}
	return pending.Write(a.pending, pending.Delete{ContainerID: args.ContainerID, IfName: args.IfName, Time: time.Now().UTC()})
}
