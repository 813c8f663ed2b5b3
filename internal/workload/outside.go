package workload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/netns"
)

// Outside is a machine outside the cluster that one node is connected with: a network namespace at the other end of a device of the
// node's. A route through it that any other default route is preferred to makes that device one of the node's ways out of the cluster,
// so what goes there is treated as what goes anywhere outside. It all goes with the process.
type Outside struct {
	NS     string   // name of the namespace
	Device string   // of the node
	Node   []string // the node's addresses on it, with lengths
	Addrs  []string // the machine's
	Ports  []int    // of its HTTP servers
	Log    *slog.Logger
}

// Run makes the machine and serves until ctx ends.
func (o *Outside) Run(ctx context.Context) error {
	if len(o.Node) == 0 || len(o.Addrs) == 0 {
		return errors.New("be outside: no address is given")
	}
	if err := netns.Delete(o.NS); err != nil { // of this container, when it was started before
		return err
	}
	if err := o.unplug(); err != nil {
		return err
	}
	ns, err := netns.Create(o.NS)
	if err != nil {
		return err
	}
	err = o.plug(ns)
	if err == nil {
		err = o.serve(ctx, ns)
	}
	return errors.Join(err, o.unplug(), netns.Delete(o.NS))
}

// plug connects the two.
func (o *Outside) plug(ns *netns.NS) error {
	f, err := os.Open(ns.Path())
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	l := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "eth0", PeerNamespace: netlink.NsFd(int(f.Fd()))}
	l.Name = o.Device
	if err := netlink.LinkAdd(l); err != nil {
		return fmt.Errorf("make device %s: %w", o.Device, err)
	}
	if err := errors.Join(ns.SetUp("eth0"), ns.Do(func() error { return addrs("eth0", o.Addrs) }), netlink.LinkSetUp(l)); err != nil {
		return err
	}
	for i, s := range o.Node {
		a, err := netlink.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("address %q: %w", s, err)
		}
		if a.IP.To4() == nil {
			a.Flags |= unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(l, a); err != nil {
			return fmt.Errorf("address %s of %s: %w", s, o.Device, err)
		}
		if err := ns.AddRoute("default", a.IP.String()); err != nil {
			return err
		}
		via, err := netip.ParsePrefix(o.Addrs[min(i, len(o.Addrs)-1)])
		if err != nil {
			return fmt.Errorf("address %q: %w", o.Addrs[i], err)
		}
		index, err := netlink.LinkByName(o.Device)
		if err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: index.Attrs().Index, Gw: via.Addr().AsSlice(), Priority: math.MaxInt32}); err != nil {
			return fmt.Errorf("route by %s: %w", o.Device, err)
		}
	}
	return nil
}

// addrs gives a device its addresses. It speaks from the first of each IP version: the others are deprecated.
func addrs(dev string, all []string) error {
	l, err := netlink.LinkByName(dev)
	if err != nil {
		return err
	}
	had := map[bool]bool{}
	for _, s := range all {
		a, err := netlink.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("address %q: %w", s, err)
		}
		v6 := a.IP.To4() == nil
		if v6 {
			a.Flags |= unix.IFA_F_NODAD
		}
		if had[v6] {
			a.ValidLft = math.MaxUint32 // for ever
		}
		had[v6] = true
		if err := netlink.AddrAdd(l, a); err != nil {
			return fmt.Errorf("address %s of %s: %w", s, dev, err)
		}
	}
	return nil
}

func (o *Outside) unplug() error {
	l, err := netlink.LinkByName(o.Device)
	if notFound := (netlink.LinkNotFoundError{}); errors.As(err, &notFound) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(l)
	}
	if err != nil {
		return fmt.Errorf("remove device %s: %w", o.Device, err)
	}
	return nil
}

func (o *Outside) serve(ctx context.Context, ns *netns.NS) error {
	var all []*Server
	for i, p := range o.Ports {
		cfg := Config{Name: "outside", Node: "no node", HTTP: p}
		if i == 0 {
			cfg.Echo = EchoPort
		}
		if err := ns.Do(func() error {
			s, err := New(cfg, o.Log)
			if err == nil {
				all = append(all, s)
			}
			return err
		}); err != nil {
			return err
		}
	}
	o.Log.Info("serving", "addresses", o.Addrs, "http", o.Ports)
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range all {
		g.Go(func() error { return s.Run(ctx) })
	}
	return g.Wait()
}
