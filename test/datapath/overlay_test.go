package datapath_test

import (
	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
)

// forWorkloads are the identities that a node may claim for one whose row has not come.
func forWorkloads(id uint32) bool { return id == 3 || id == 5 || id >= 100 && id < 1<<24 }

// outside are identities of nobody in the cluster, that a node may say on behalf of a service's client.
func outside(id uint32) bool { return id == 2 || id == 9 || id == 10 }

// itself says whether an identity is a node's.
func itself(id uint32) bool { return id == idNode || id == idLabelled }

// client is somebody outside whose packet a node sends on.
func (o *oracle) client(p *view, who *place) (end, uint8) {
	switch {
	case who != nil && (who.role == behind || who.role == nobody || who.gate), p.src.IsMulticast(), p.src.IsLoopback(), p.src.IsUnspecified(), p.src.IsLinkLocalUnicast():
		return end{}, maps.DropSourceIP
	case p.v == 0 && (p.src.As4()[0] == 0 || p.src.As4()[0] >= 240):
		return end{}, maps.DropSourceIP
	}
	return end{id: who.id}, 0
}

// sender is whom to believe a packet out of the tunnel to be from.
func (o *oracle) sender(p *view, outer bpftest.Outer) (end, uint8) {
	node := o.exact[outer.From]
	if node == nil || !node.gate || node.role == self {
		return end{}, maps.DropUnknownSender
	}
	who := o.exact[p.src]
	if who == nil {
		who = o.rangeOf(p.src)
		if outside(outer.VNI) {
			return o.client(p, who)
		}
		if who.role != behind || who.node != outer.From {
			return end{}, maps.DropSourceIP
		}
		if _, known := classes[outer.VNI]; !known || !forWorkloads(outer.VNI) {
			return end{}, maps.DropIdentity
		}
		return end{id: outer.VNI}, 0
	}
	if !(who.role == behind && who.node == outer.From) && p.src != outer.From {
		return end{}, maps.DropSourceIP
	}
	if who.was != 0 && who.was == outer.VNI && who.id != outer.VNI {
		return end{id: who.was, leaving: true, next: who.id}, 0
	}
	if outside(outer.VNI) && itself(who.id) {
		return end{id: outer.VNI}, 0
	}
	if who.id != outer.VNI && !(outer.VNI == idNode && who.id == idLabelled) {
		return end{}, maps.DropIdentity
	}
	return end{id: who.id}, 0
}

func (o *oracle) fromOverlay(in bpftest.Packet) fate {
	if in.Outer == nil {
		return fate{why: maps.DropTunnelKey}
	}
	p, why := read(in.Frame)
	if why != 0 {
		return fate{why: why}
	}
	from, why := o.sender(p, *in.Outer)
	if why == 0 {
		why = o.follow(p)
	}
	if why == 0 && p.complaint {
		why = p.unquote()
	}
	if why != 0 {
		return fate{why: why}
	}
	who := o.exact[p.dst]
	switch {
	case who != nil && who.role == self:
		return fate{act: toStack, frame: p.frame}
	case who == nil || who.role != local:
		return fate{why: maps.DropUnroutable}
	}
	if _, d := o.admit(p, from, o.endpoint(who.pod), false); d != none {
		return refuse(d)
	}
	return o.intoPod(p.frame, who.pod)
}

// toOverlay is what the node's stack sends into the tunnel: its own packets only.
func (o *oracle) toOverlay(in bpftest.Packet) fate {
	if in.Mark&markMask == markOverlay {
		return fate{act: toStack, frame: in.Frame, mark: in.Mark}
	}
	p, why := read(in.Frame)
	if why != 0 {
		return fate{why: why}
	}
	if crowd(p.dst) {
		return fate{act: quiet}
	}
	if src := o.exact[p.src]; src == nil || src.role != self || in.Ingress != 0 {
		return fate{why: maps.DropSourceIP}
	}
	to := o.at(p.dst)
	if to.role != behind {
		return fate{why: maps.DropNoTunnel}
	}
	return fate{act: toTunnel, frame: p.frame, mark: in.Mark&^markMask | markOverlay, peer: to.node}
}
