package server

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"connectrpc.com/connect"

	peerpb "github.com/hypha-net/hypha/api/peer"
	"github.com/hypha-net/hypha/internal/model"
)

// peers is peer.Peer.
type peers struct{ *Server }

// peerInfo is what clients learn of a node.
type peerInfo struct{ name, address, server string }

// peerList is sorted by name. Nodes that serve no flows have no address.
func (s *Server) peerList(nodes []model.Node) []peerInfo {
	out := make([]peerInfo, 0, len(nodes))
	for _, n := range nodes {
		p := peerInfo{name: n.Name, address: n.FlowAddr}
		if n.Cluster != "" && n.Cluster != "default" {
			p.name = n.Cluster + "/" + n.Name
		}
		if s.tls {
			p.server = ServerName(n.Cluster, n.Name)
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b peerInfo) int { return cmp.Compare(a.name, b.name) })
	return out
}

// ServerName is the name in a node's certificate: "node.cluster.hubble-grpc.cilium.io", dots inside names as dashes.
func ServerName(cluster, node string) string {
	dashes := strings.NewReplacer(".", "-")
	return dashes.Replace(node) + "." + dashes.Replace(cmp.Or(cluster, "default")) + ".hubble-grpc.cilium.io"
}

// Notify streams the peers, then their changes.
func (s *peers) Notify(ctx context.Context, _ *connect.Request[peerpb.NotifyRequest], out *connect.ServerStream[peerpb.ChangeNotification]) error {
	known := map[string]peerInfo{}
	send := func(p peerInfo, t peerpb.ChangeNotificationType) error {
		n := &peerpb.ChangeNotification{Name: p.name, Address: p.address, Type: t}
		if p.server != "" {
			n.Tls = &peerpb.TLS{ServerName: p.server}
		}
		return out.Send(n)
	}
	for {
		nodes, changed := s.nodes()
		now := map[string]bool{}
		for _, p := range s.peerList(nodes) {
			if p.address == "" {
				continue
			}
			now[p.name] = true
			old, ok := known[p.name]
			known[p.name] = p
			var err error
			switch {
			case !ok:
				err = send(p, peerpb.ChangeNotificationType_PEER_ADDED)
			case old != p:
				err = send(p, peerpb.ChangeNotificationType_PEER_UPDATED)
			}
			if err != nil {
				return err
			}
		}
		for name, p := range known {
			if now[name] {
				continue
			}
			delete(known, name)
			if err := send(p, peerpb.ChangeNotificationType_PEER_DELETED); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}
