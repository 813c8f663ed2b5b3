package cli

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/cli/out"
	"github.com/hypha-net/hypha/internal/model"
)

// serviceFlags are the flags of `service update`.
type serviceFlags struct {
	id                                                   uint64
	frontend, protocol, name                             string
	backends, states, weights, zones, hints              []string
	external, nodePort, loadBalancer, hostPort, redirect bool
	clusterInternal                                      bool
	extPolicy, intPolicy, selection, distribution        string
	affinity                                             time.Duration
	healthPort                                           uint16
	ranges                                               []string
	rangesDeny                                           bool
}

func (e *env) serviceUpdate() *cobra.Command {
	cmd := &cobra.Command{Use: "update --id ID --frontend ADDRESS:PORT[/PROTOCOL] [--backends ADDRESS:PORT,...]", Aliases: []string{"add"}, Short: "Make a service, or change one",
		Long: "Make a service, or change the one with the number; what is not given stays as it is. Without --id the service of the frontend\n" +
			"is meant, and a new one gets a number that is free. --backends \"\" takes all backends away.\n\n" +
			"  hypha service update --id 1 --frontend 10.96.0.1:80 --backends 10.0.0.5:80,10.0.0.6:80\n" +
			"  hypha service update --id 1 --states active,quarantined",
		Args: need(0, 0, "")}
	var v serviceFlags
	f := cmd.Flags()
	f.Uint64Var(&v.id, "id", 0, "number of the service")
	f.StringVar(&v.frontend, "frontend", "", "address at which it is reached, 10.96.0.1:80 or [fd00::1]:80, /UDP behind it for another protocol; 0.0.0.0 with a NodePort")
	f.StringSliceVar(&v.backends, "backends", nil, "addresses where it really is")
	f.StringVar(&v.protocol, "protocol", "tcp", "tcp, udp or sctp, where the address does not say")
	f.StringSliceVar(&v.states, "states", nil, "state of each backend: active, terminating, quarantined or maintenance")
	f.StringSliceVar(&v.weights, "backend-weights", nil, "weight of each backend: its share of new flows; 0 is maintenance")
	f.StringSliceVar(&v.zones, "backend-zones", nil, "zone of each backend")
	f.StringSliceVar(&v.hints, "backend-hints", nil, "zones that each backend is for, + between two; they count with --traffic-distribution, or where the agent has enable-service-topology (default: its own, with --traffic-distribution)")
	f.BoolVar(&v.external, "k8s-external", false, "type ExternalIPs")
	f.BoolVar(&v.nodePort, "k8s-node-port", false, "type NodePort")
	f.BoolVar(&v.loadBalancer, "k8s-load-balancer", false, "type LoadBalancer")
	f.BoolVar(&v.hostPort, "k8s-host-port", false, "type HostPort")
	f.BoolVar(&v.redirect, "local-redirect", false, "type LocalRedirect")
	f.BoolVar(&v.clusterInternal, "k8s-cluster-internal", false, "for workloads and nodes of the cluster only, beside one for everybody else")
	f.StringVar(&v.extPolicy, "k8s-ext-traffic-policy", "Cluster", "who serves what comes from outside: Cluster or Local, the node's own backends")
	f.StringVar(&v.intPolicy, "k8s-int-traffic-policy", "Cluster", "who serves what comes from inside: Cluster or Local")
	f.StringVar(&v.name, "name", "", "[namespace/]name, for flows and lists")
	f.DurationVar(&v.affinity, "affinity", 0, "how long a client stays with its backend; 0s: it does not")
	f.StringVar(&v.selection, "selection", "", "random or maglev (default: as the node is configured)")
	f.StringVar(&v.distribution, "traffic-distribution", "", "which backends new flows go to while there are such: PreferClose, PreferSameZone or PreferSameNode")
	f.Uint16Var(&v.healthPort, "health-check-node-port", 0, "port at which nodes say whether they have a backend, with the external policy Local")
	f.StringSliceVar(&v.ranges, "source-ranges", nil, "who may come from outside, CIDRs (default: everybody)")
	f.BoolVar(&v.rangesDeny, "source-ranges-deny", false, "they are who may not")
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := e.serviceToUpdate(cmd, &v)
		if err != nil {
			return err
		}
		if err := v.apply(s, cmd.Flags().Changed); err != nil {
			return &usageError{what: err.Error(), hint: "hypha service update --id 1 --frontend 10.96.0.1:80 --backends 10.0.0.5:80,10.0.0.6:80"}
		}
		a, err := e.admin()
		if err != nil {
			return err
		}
		resp, err := a.UpdateService(cmd.Context(), req(&agentv1.UpdateServiceRequest{Service: s}))
		if err != nil {
			return unchanged(err)
		}
		return o.write(out.Proto{M: resp.Msg}, func() error {
			first, second := "Updating existing", "Updated"
			if resp.Msg.GetCreated() {
				first, second = "Creating new", "Added"
			}
			s := resp.Msg.GetService()
			_, err := fmt.Fprintf(e.Stdout, "%s service with id '%d'\n%s service with %d backends\n", first, s.GetId(), second, len(s.GetBackends()))
			return err
		})
	}
	return cmd
}

// serviceToUpdate is the service as it is, or a new one.
func (e *env) serviceToUpdate(cmd *cobra.Command, v *serviceFlags) (*agentv1.Service, error) {
	given := cmd.Flags().Changed
	if given("id") {
		id, err := serviceID(strconv.FormatUint(v.id, 10))
		if err != nil {
			return nil, usagef("--id %d: want 1 to %d", v.id, uint32(1<<31-1))
		}
		s, err := e.getService(cmd, id)
		if err == nil {
			return s, nil
		}
		if connect.CodeOf(err) != connect.CodeNotFound {
			return nil, err
		}
		if v.frontend == "" {
			return nil, &usageError{what: fmt.Sprintf("there is no service %d yet: a new one needs --frontend", id), hint: "hypha service list"}
		}
		return &agentv1.Service{Id: id}, nil
	}
	if v.frontend == "" {
		return nil, &usageError{what: "service update needs --frontend, or the --id of a service that is there",
			hint: "hypha service update --id 1 --frontend 10.96.0.1:80 --backends 10.0.0.5:80,10.0.0.6:80"}
	}
	fe, err := v.parseFrontend(given("protocol"))
	if err != nil {
		return nil, &usageError{what: err.Error()}
	}
	r, err := e.reader()
	if err != nil {
		return nil, err
	}
	resp, err := r.ListServices(cmd.Context(), req(&agentv1.ListServicesRequest{}))
	if err != nil {
		return nil, err
	}
	for _, s := range resp.Msg.GetServices() {
		if frontendText(s.GetFrontend()) == fe.String() {
			return s, nil
		}
	}
	return &agentv1.Service{}, nil
}

// parseFrontend reads --frontend, with --protocol and --k8s-cluster-internal.
func (v *serviceFlags) parseFrontend(protocolGiven bool) (model.Frontend, error) {
	proto, err := model.ParseServiceProto(v.protocol)
	if err != nil {
		return model.Frontend{}, fmt.Errorf("--protocol: %w", err)
	}
	f, err := model.ParseFrontend(v.frontend, proto)
	switch {
	case err != nil:
		return f, fmt.Errorf("--frontend: %w", err)
	case protocolGiven && f.Proto != proto:
		return f, fmt.Errorf("--frontend %s and --protocol %s do not agree", v.frontend, v.protocol)
	}
	if v.clusterInternal {
		f.Scope = model.ScopeInternal
	}
	return f, nil
}

// apply puts what was given into a service.
func (v *serviceFlags) apply(s *agentv1.Service, given func(string) bool) error {
	if v.frontend != "" {
		f, err := v.parseFrontend(given("protocol"))
		if err != nil {
			return err
		}
		s.Frontend = &agentv1.Frontend{Ip: f.Addr.String(), Port: uint32(f.Port), Protocol: model.ServiceProtoName(f.Proto), Scope: "external"}
		if f.Scope == model.ScopeInternal {
			s.Frontend.Scope = "internal"
		}
	}
	if err := errors.Join(v.applyType(s), v.applyBackends(s, given)); err != nil {
		return err
	}
	if given("name") {
		ns, name, ok := strings.Cut(v.name, "/")
		if !ok {
			ns, name = "", v.name
		}
		s.Name, s.Namespace = name, ns
	}
	for _, p := range []struct {
		flag, value string
		to          *string
	}{{"k8s-ext-traffic-policy", v.extPolicy, &s.ExternalTrafficPolicy}, {"k8s-int-traffic-policy", v.intPolicy, &s.InternalTrafficPolicy}} {
		if given(p.flag) {
			if _, err := model.ParseTrafficPolicy(p.value); err != nil {
				return fmt.Errorf("--%s: %w", p.flag, err)
			}
			*p.to = p.value
		}
	}
	if given("affinity") {
		if v.affinity < 0 || v.affinity > 24*time.Hour || v.affinity%time.Second != 0 {
			return fmt.Errorf("--affinity %v: want whole seconds, up to 24h", v.affinity)
		}
		s.AffinitySeconds = uint32(v.affinity / time.Second)
	}
	if given("selection") {
		if _, err := model.ParseSelection(v.selection); err != nil {
			return fmt.Errorf("--selection: %w", err)
		}
		s.Selection = v.selection
	}
	if given("traffic-distribution") {
		if _, err := model.ParsePreference(v.distribution); err != nil {
			return fmt.Errorf("--traffic-distribution: %w", err)
		}
		s.TrafficDistribution = v.distribution
	}
	if given("health-check-node-port") {
		s.HealthCheckNodePort = uint32(v.healthPort)
	}
	return v.applyRanges(s, given)
}

func (v *serviceFlags) applyRanges(s *agentv1.Service, given func(string) bool) error {
	if given("source-ranges") {
		for _, r := range v.ranges {
			if _, err := netip.ParsePrefix(r); err != nil {
				return fmt.Errorf("--source-ranges: %q is no CIDR: want 192.0.2.0/24", r)
			}
		}
		s.SourceRanges = v.ranges
		if len(v.ranges) == 0 {
			s.SourceRangesPolicy = ""
		}
	}
	if given("source-ranges-deny") {
		if s.SourceRangesPolicy = "allow"; v.rangesDeny {
			s.SourceRangesPolicy = "deny"
		}
	}
	return nil
}

func (v *serviceFlags) applyType(s *agentv1.Service) error {
	var types []string
	for _, t := range []struct {
		on   bool
		name string
	}{{v.external, "ExternalIPs"}, {v.nodePort, "NodePort"}, {v.loadBalancer, "LoadBalancer"}, {v.hostPort, "HostPort"}, {v.redirect, "LocalRedirect"}} {
		if t.on {
			types = append(types, t.name)
		}
	}
	switch len(types) {
	case 0:
	case 1:
		s.Type = types[0]
	default:
		return fmt.Errorf("a service is of one type, not %s at once", strings.Join(types, " and "))
	}
	return nil
}

func (v *serviceFlags) applyBackends(s *agentv1.Service, given func(string) bool) error {
	if given("backends") {
		proto, err := model.ParseServiceProto(s.GetFrontend().GetProtocol())
		if err != nil {
			return err
		}
		s.Backends = nil
		for _, b := range v.backends {
			ap, p, err := model.ParseAddress(b, proto)
			if err != nil {
				return fmt.Errorf("--backends: %w", err)
			}
			s.Backends = append(s.Backends, &agentv1.Backend{Ip: ap.Addr().String(), Port: uint32(ap.Port()), Protocol: model.ServiceProtoName(p)})
		}
	}
	for _, each := range []struct {
		flag   string
		values []string
	}{{"states", v.states}, {"backend-weights", v.weights}, {"backend-zones", v.zones}, {"backend-hints", v.hints}} {
		if n := len(each.values); n > 0 && n != len(s.GetBackends()) {
			return fmt.Errorf("--%s: %d for %s: give one for each, in their order", each.flag, n, count(uint64(len(s.GetBackends())), "backend"))
		}
	}
	for i, zone := range v.zones {
		s.Backends[i].Zone = zone
	}
	for i, zones := range v.hints {
		s.Backends[i].Hints = model.NewZones(strings.Split(zones, "+")...).List()
	}
	for i, state := range v.states {
		st, err := model.ParseBackendState(state)
		if err != nil {
			return fmt.Errorf("--states: %w", err)
		}
		s.Backends[i].State = st.String()
	}
	for i, weight := range v.weights {
		n, err := strconv.ParseUint(weight, 10, 16)
		if err != nil {
			return fmt.Errorf("--backend-weights: %q: want 0 to 65535", weight)
		}
		if s.Backends[i].Weight = uint32(n); n == 0 {
			s.Backends[i].State = model.BackendMaintenance.String()
		}
	}
	return nil
}
