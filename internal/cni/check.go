package cni

import (
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/client"
)

func (p *plugin) check(args *skel.CmdArgs) (err error) {
	c, a, end, err := begin("CHECK", args)
	if err != nil {
		return err
	}
	defer func() { end(err) }()
	addrs, err := previous(c, args)
	if err != nil {
		return err
	}
	if err := checkNetNS(args); err != nil {
		return err
	}
	ctx, cancel := timeout()
	defer cancel()
	_, err = a.admin().CheckEndpoint(ctx, connect.NewRequest(&agentv1.CheckEndpointRequest{
		ContainerId: args.ContainerID, Interface: args.IfName, Netns: args.Netns, Addresses: addrs,
	}))
	if err != nil {
		return fail("check workload", err, types.ErrInvalidNetworkConfig)
	}
	return nil
}

// previous are the addresses that the last ADD gave to this interface, from the result that the runtime kept.
func previous(c *conf, args *skel.CmdArgs) ([]string, error) {
	if len(c.RawPrevResult) == 0 {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, "network configuration: prevResult: CHECK needs the result of ADD", "")
	}
	bad := func(err error) error {
		return types.NewError(types.ErrDecodingFailure, "network configuration: prevResult: "+err.Error(), "")
	}
	if err := version.ParsePrevResult(&c.PluginConf); err != nil {
		return nil, bad(err)
	}
	res, err := current.NewResultFromResult(c.PrevResult)
	if err != nil {
		return nil, bad(err)
	}
	var addrs []string
	for _, ip := range res.IPs {
		if ip.Interface != nil {
			i := *ip.Interface
			if i < 0 || i >= len(res.Interfaces) {
				return nil, bad(fmt.Errorf("address %s: there is no interface %d", ip.Address.String(), i))
			}
			if f := res.Interfaces[i]; f == nil || f.Name != args.IfName || f.Sandbox == "" {
				continue // another plugin's
			}
		}
		addrs = append(addrs, ip.Address.String())
	}
	return addrs, nil
}

func (p *plugin) status(args *skel.CmdArgs) (err error) {
	_, a, end, err := begin("STATUS", args)
	if err != nil {
		return err
	}
	defer func() { end(err) }()
	ctx, cancel := timeout()
	defer cancel()
	resp, err := a.reader().Status(ctx, connect.NewRequest(&agentv1.StatusRequest{}))
	if err != nil {
		return types.NewError(types.ErrPluginNotAvailable, client.Message(err), "")
	}
	if resp.Msg.GetState() != agentv1.Component_FAILURE {
		return nil
	}
	var why []string
	for _, c := range resp.Msg.GetComponents() {
		if c.GetState() == agentv1.Component_FAILURE {
			why = append(why, c.GetName()+": "+c.GetMessage())
		}
	}
	return types.NewError(types.ErrLimitedConnectivity, "the agent reports a failure: see `hypha status`", strings.Join(why, "; "))
}
