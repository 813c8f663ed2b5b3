package demo

import (
	"errors"
	"fmt"

	"github.com/hypha-net/hypha/internal/netns"
)

// wire makes what is missing of the nodes' namespaces and the network between them.
func (d *Demo) wire() error {
	if !netns.Mounted() {
		if err := d.update(func(s *state) { s.MountedNetNS = true }); err != nil {
			return err
		}
	}
	world, err := d.ensure(worldName)
	if err != nil {
		return err
	}
	if err := setUpWorld(world); err != nil {
		return err
	}
	for _, n := range nodes {
		ns, err := d.ensure(n.name)
		if err != nil {
			return err
		}
		if err := plug(world, ns, n); err != nil {
			return fmt.Errorf("connect node %s: %w", n.name, err)
		}
	}
	return nil
}

// ensure opens the namespace of this name or makes it.
func (d *Demo) ensure(name string) (*netns.NS, error) {
	ns, err := d.open(name)
	if !errors.Is(err, netns.ErrNotExist) {
		return ns, err
	}
	if err := netns.Delete(d.nsName(name)); err != nil { // a file that lost its mount
		return nil, err
	}
	return netns.Create(d.nsName(name))
}

func setUpWorld(world *netns.NS) error {
	addrs, outside := []string{worldIP4 + "/24"}, []string{outside4 + "/32"}
	if hasIPv6() {
		addrs, outside = append(addrs, worldIP6+"/64"), append(outside, outside6+"/128")
	}
	if !world.HasLink(worldNet) {
		if err := world.Bridge(worldNet); err != nil {
			return err
		}
	}
	return errors.Join(world.AddAddr(worldNet, addrs...), world.AddAddr("lo", outside...))
}

// plug joins a node to the network between the nodes.
func plug(world, ns *netns.NS, n node) error {
	if !ns.HasLink("eth0") || !world.HasLink(n.name) {
		if err := errors.Join(world.DeleteLink(n.name), ns.DeleteLink("eth0")); err != nil {
			return err
		}
		if err := netns.Veth(world, n.name, ns, "eth0"); err != nil {
			return err
		}
	}
	if err := world.SetMaster(n.name, worldNet); err != nil {
		return err
	}
	addrs, gateways := []string{n.ip4 + "/24"}, []string{worldIP4}
	if hasIPv6() {
		addrs, gateways = append(addrs, n.ip6+"/64"), append(gateways, worldIP6)
	}
	if err := ns.AddAddr("eth0", addrs...); err != nil {
		return err
	}
	for _, gw := range gateways {
		if err := ns.AddRoute("default", gw); err != nil {
			return err
		}
	}
	return nil
}
