package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/vishvananda/netlink"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
)

// Holdings are what each node holds outside of its agent's process, by its name: how many rows each map has, the connection table
// flushed before, the pins, state files, keys of the store, devices and routes.
func (c *Cluster) Holdings(ctx context.Context) (map[string][]string, error) {
	out := map[string][]string{}
	for _, n := range c.Nodes {
		held, err := n.holdings(ctx)
		if err != nil {
			return nil, fmt.Errorf("ask %s what it holds: %w", n.Name, err)
		}
		out[n.Name] = held
	}
	return out, nil
}

func (n *Node) holdings(ctx context.Context) (out []string, err error) {
	if _, err := n.Admin().FlushMap(ctx, connect.NewRequest(&agentv1.FlushMapRequest{Name: "ct_v1"})); err != nil {
		return nil, err
	}
	st, err := n.Status(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range st.GetMaps() {
		out = append(out, fmt.Sprintf("%d rows of %s", m.GetEntries(), m.GetName()))
	}
	for what, dir := range map[string]string{"pin": n.Paths.BPF, "file": n.Paths.State} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist): // gone meanwhile
				return nil
			case err == nil && d.Name() == "etcd":
				return fs.SkipDir
			case err == nil && strings.Contains(d.Name(), ".tmp-"):
				return fmt.Errorf("%s is being written", path) // one that stays is a fault
			case err == nil && !d.IsDir():
				out = append(out, what+" "+path)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	for _, prefix := range []string{"cilium/", "hypha/"} {
		keys, err := n.Admin().KVGet(ctx, connect.NewRequest(&agentv1.KVGetRequest{Key: prefix, Prefix: true}))
		if err != nil {
			return nil, err
		}
		for _, kv := range keys.Msg.GetPairs() {
			out = append(out, "key "+kv.GetKey())
		}
	}
	err = n.NS.Do(func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			out = append(out, "device "+l.Attrs().Name)
		}
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			routes, rerr := netlink.RouteListFiltered(family, &netlink.Route{}, netlink.RT_FILTER_TABLE) // table 0: all
			err = errors.Join(err, rerr)
			for _, r := range routes {
				if r.Dst == nil || !r.Dst.IP.IsLinkLocalUnicast() { // those follow their devices
					out = append(out, fmt.Sprintf("route to %v by %d", r.Dst, r.LinkIndex))
				}
			}
		}
		return err
	})
	slices.Sort(out)
	return out, err
}
