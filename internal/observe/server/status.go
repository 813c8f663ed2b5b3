package server

import (
	"context"
	"time"

	"connectrpc.com/connect"

	observerpb "github.com/hypha-net/hypha/api/observer"
	relaypb "github.com/hypha-net/hypha/api/relay"
)

// ServerStatus counts.
func (s *flows) ServerStatus(context.Context, *connect.Request[observerpb.ServerStatusRequest]) (*connect.Response[observerpb.ServerStatusResponse], error) {
	st := s.obs.Stats()
	return connect.NewResponse(&observerpb.ServerStatusResponse{
		NumFlows: uint64(st.Current), MaxFlows: uint64(st.Max), SeenFlows: st.Stored, FlowsRate: st.Rate,
		UptimeNs: s.uptime(st.Started), Version: s.obs.Config().Version,
	}), nil
}

func (s *Server) uptime(started time.Time) uint64 { return uint64(max(0, s.obs.Now().Sub(started))) }

// GetNodes tells the nodes of the cluster. Numbers, and whether it can be reached, are known of this node only.
func (s *flows) GetNodes(context.Context, *connect.Request[observerpb.GetNodesRequest]) (*connect.Response[observerpb.GetNodesResponse], error) {
	all, _ := s.nodes()
	res := &observerpb.GetNodesResponse{}
	self := false
	for _, p := range s.peerList(all) {
		n := &observerpb.Node{Name: p.name, Address: p.address}
		if p.server != "" {
			n.Tls = &observerpb.TLS{Enabled: true, ServerName: p.server}
		}
		if p.name == s.obs.NodeName() {
			s.fill(n)
			self = true
		}
		res.Nodes = append(res.Nodes, n)
	}
	if !self {
		n := &observerpb.Node{Name: s.obs.NodeName()}
		s.fill(n)
		res.Nodes = append(res.Nodes, n)
	}
	return connect.NewResponse(res), nil
}

func (s *Server) fill(n *observerpb.Node) {
	st := s.obs.Stats()
	n.State, n.Version, n.UptimeNs = relaypb.NodeState_NODE_CONNECTED, s.obs.Config().Version, s.uptime(st.Started)
	n.NumFlows, n.MaxFlows, n.SeenFlows = uint64(st.Current), uint64(st.Max), st.Stored
}

// GetNamespaces tells where workloads seen in flows live.
func (s *flows) GetNamespaces(context.Context, *connect.Request[observerpb.GetNamespacesRequest]) (*connect.Response[observerpb.GetNamespacesResponse], error) {
	res := &observerpb.GetNamespacesResponse{}
	for _, n := range s.obs.Namespaces() {
		res.Namespaces = append(res.Namespaces, &observerpb.Namespace{Cluster: n.Cluster, Namespace: n.Name})
	}
	return connect.NewResponse(res), nil
}
