package service

import (
	"net/netip"

	"github.com/hypha-net/hypha/internal/datapath/maps"
)

// address is an address that has to do with services.
type address struct {
	used  int               // frontends in force
	vips  int               // frontends that make it a VIP, in force or not
	node  bool              // the node's own
	there bool              // the kernel has a row of it
	row   maps.FrontendAddr // what that says
}

// wants is what its row is to say.
func (x *address) wants() maps.FrontendAddr { return maps.FrontendAddr{VIP: x.vips > 0, Node: x.node} }

// needed says whether it is to have a row.
func (x *address) needed() bool { return x.used > 0 || x.vips > 0 || x.node }

// at is what is known of an address, from now on.
func (t *Target) at(a netip.Addr) *address {
	x := t.addrs[a]
	if x == nil {
		x = &address{}
		t.addrs[a] = x
	}
	return x
}

// rowless says whether an address is never to have a row, though there are frontends: every network namespace has a loopback of its own,
// and the programs find the frontends of the node's without one.
func rowless(a netip.Addr) bool { return a.IsLoopback() }

// settle brings the row of an address in line with what is known of it.
func (t *Target) settle(a netip.Addr) error {
	x := t.at(a)
	if rowless(a) {
		if x.used == 0 {
			delete(t.addrs, a)
		}
		return nil
	}
	if !x.needed() {
		if x.there {
			if err := t.maps.DeleteFrontendAddr(a); err != nil {
				return err
			}
		}
		delete(t.addrs, a)
		return nil
	}
	want := x.wants()
	if x.there && x.row == want {
		return nil
	}
	if err := t.maps.PutFrontendAddr(a, want); err != nil {
		return err
	}
	x.there, x.row = true, want
	return nil
}
