package app

import (
	"context"
	"errors"
	"fmt"
	gomaps "maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/cgroup"
	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/datapath/socket"
	"github.com/hypha-net/hypha/internal/endpoint/pending"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/version"
)

const (
	stateOK       = agentv1.Component_OK
	stateWarning  = agentv1.Component_WARNING
	stateFailure  = agentv1.Component_FAILURE
	stateDisabled = agentv1.Component_DISABLED
)

// status is what `hypha status` shows: every part says how it is and, when it is not well, what to do.
func (a *Agent) status(context.Context) *agentv1.StatusResponse {
	s := &agentv1.StatusResponse{Version: version.Get().Version, NodeName: a.cfg.NodeName, ClusterName: a.cfg.ClusterName, Started: timestamppb.New(a.started),
		Addresses: texts(a.self.Addrs), PodCidrs: texts(a.alloc.Prefixes()), RoutingMode: a.cfg.RoutingMode, StateDir: a.paths.State, Kernel: a.kernel.Release,
		PolicyRevision: a.policies.Revision(), Policies: uint32(a.store.policies.Snapshot().Policies.Len()), Nodes: uint32(a.store.nodes.Table().Snapshot().Len()),
		Identities: uint32(len(a.policies.Identities())), EventsStored: a.eventCounter.stored.Load(), EventsLost: a.eventCounter.lost.Load(),
		Kvstore: a.storeName()}
	flows := a.observer.Flows()
	s.FlowsCurrent, s.FlowsMax = uint64(flows.Len()), uint64(flows.Cap())

	add := func(name string, state agentv1.Component_State, message, remedy string) {
		s.Components = append(s.Components, &agentv1.Component{Name: name, State: state, Message: message, Remedy: remedy})
		if state != stateDisabled && state > s.State {
			s.State = state
		}
	}
	a.storeStatus(add)
	a.diskStatus(add)
	a.policyStatus(add)
	a.endpointStatus(s, add)
	a.datapathStatus(s, add)
	a.serviceStatus(add)
	a.prefilterStatus(add)
	a.fastStatus(add)
	if a.cfg.EnableHubble {
		add("hubble", stateOK, fmt.Sprintf("%d of %s", s.FlowsCurrent, count(s.FlowsMax, "flow")), "")
	} else {
		add("hubble", stateDisabled, "enable-hubble is off", "")
	}
	return s
}

type addFunc func(name string, state agentv1.Component_State, message, remedy string)

// storeName says what keeps the cluster's state.
func (a *Agent) storeName() string {
	if a.store.kube != nil {
		return "API server " + a.store.kube.Status().Server
	}
	kv := a.store.kv.Status()
	if name := strings.Join(kv.Endpoints, ","); !kv.Embedded {
		return name
	}
	return "embedded " + strings.Join(kv.Endpoints, ",")
}

// apiStatus is storeStatus where an API server keeps the state.
func (a *Agent) apiStatus(add addFunc) {
	api := a.store.kube.Status()
	const waits = "new identities and policies wait for it"
	switch {
	case api.Connected && api.Complete && api.Err == "":
		add("kubernetes", stateOK, fmt.Sprintf("connected to %s, %s to be written", api.Server, count(api.Pending, "object")), "")
	case api.Connected && api.Complete:
		add("kubernetes", stateWarning, fmt.Sprintf("%s answers but does not take what is written: %s; %s not written", api.Server, api.Err, count(api.Pending, "object")),
			"compare the agent's ClusterRole with the one of its chart; other nodes do not hear of this node's news")
	case api.Complete:
		add("kubernetes", stateWarning, "not all of it answers since "+api.Since.Format("15:04:05")+": "+api.Err+"; the last known state stays in force",
			"bring the API server at "+api.Server+" back; "+waits)
	case api.Connected && api.Awaited > 0:
		add("kubernetes", stateFailure, count(api.Awaited, "endpoint")+" of other nodes not in a CiliumEndpointSlice yet; policy stays as the kernel has it",
			"see that the operator runs, with enable-cilium-endpoint-slice as the agents have it; policy waits for that")
	default:
		add("kubernetes", stateFailure, "not heard out yet: "+api.Err+"; policy stays as the kernel has it",
			"bring the API server at "+api.Server+" up, correct k8s-api-server and its credentials, or install the CRDs; "+waits)
	}
}

func (a *Agent) storeStatus(add addFunc) {
	if a.store.kube != nil {
		a.apiStatus(add)
		return
	}
	kv := a.store.kv.Status()
	where := strings.Join(kv.Endpoints, ", ")
	back := "bring the store at " + where + " back"
	if kv.Embedded {
		back = "make room where " + a.paths.Etcd() + " lies, or make it writable; the agent brings the store back by itself"
	}
	switch {
	case kv.Connected && kv.Complete && kv.Err == "":
		add("kvstore", stateOK, fmt.Sprintf("connected, lease %x of %s, %s published", kv.Lease, kv.LeaseTTL, count(kv.Published, "key")), "")
	case kv.Connected && kv.Complete:
		add("kvstore", stateWarning, fmt.Sprintf("%s answers but does not take what is written: %s; %s not published", where, kv.Err, count(kv.Pending, "key")),
			"where its space is used up: compact and defragment it, then `etcdctl alarm disarm`; new identities and policies wait for it")
	case kv.Complete:
		add("kvstore", stateWarning, "not reached since "+kv.Since.Format("15:04:05")+": "+kv.Err+"; the last known state stays in force",
			back+"; new identities and policies wait for it")
	case kv.Embedded:
		add("kvstore", stateFailure, "not reached yet: "+kv.Err+"; what the last run knew is in force", back)
	default:
		add("kvstore", stateFailure, "not reached yet: "+kv.Err+"; what the last run knew is in force",
			"start the store at "+where+", or correct etcd-endpoints and its certificates")
	}
}

func (a *Agent) policyStatus(add addFunc) {
	mode := "mode " + a.policies.Mode()
	if on, err := a.maps.Audit(); err == nil && on {
		mode += ", audit"
	}
	want, have, err := a.store.policies.Snapshot().Revision, a.policies.Revision(), a.policies.Err()
	switch {
	case errors.Is(err, maps.ErrFull):
		add("policy", stateFailure, err.Error()+"; revision "+fmt.Sprint(have)+" stays in force, new workloads are refused",
			"raise "+sizeOption(err)+" and restart the agent, or have fewer policies; the agent tries again by itself")
	case err != nil:
		add("policy", stateFailure, err.Error(), "revision "+fmt.Sprint(have)+" stays in force; the agent tries again by itself, `hypha policy get` shows what was imported")
	case want != have:
		add("policy", stateWarning, fmt.Sprintf("revision %d is in force, %d is being applied", have, want), "")
	default:
		add("policy", stateOK, fmt.Sprintf("revision %d, %s", have, mode), "")
	}
}

// sizeOption is the option that sets the size of the map that an error says is full.
func sizeOption(err error) string {
	if strings.Contains(err.Error(), maps.IPCacheExact) || strings.Contains(err.Error(), maps.IPCache) {
		return "bpf-ipcache-max"
	}
	return "bpf-policy-map-max"
}

func (a *Agent) endpointStatus(s *agentv1.StatusResponse, add addFunc) {
	var late []string
	for id, e := range a.endpoints.Table().Snapshot().All() {
		s.Endpoints++
		if e.State == model.EndpointReady {
			s.EndpointsReady++
		} else {
			late = append(late, fmt.Sprintf("%d (%s/%s: %s)", id, e.Namespace, e.Name, e.State))
		}
	}
	if len(late) > 0 {
		add("endpoints", stateWarning, "not ready: "+strings.Join(late, ", "), "`hypha endpoint log ID` says what they wait for")
	} else {
		add("endpoints", stateOK, fmt.Sprintf("%d ready", s.EndpointsReady), "")
	}
	if left, _ := pending.Count(a.paths.PendingDel()); left > 0 {
		add("deletes", stateWarning, fmt.Sprintf("%s noted by the CNI plugin in %s wait to be finished", count(uint64(left), "delete"), a.paths.PendingDel()),
			"the agent goes on by itself; its log says what they wait for")
	} else {
		add("deletes", stateOK, "none pending", "")
	}
	used, ranges, wrong := len(a.alloc.Dump()), strings.Join(texts(a.alloc.Prefixes()), ", "), ""
	if a.podPools != nil {
		ranges, wrong = a.podPools.state()
	}
	text := fmt.Sprintf("%s in use of %s", counted(used, "address", "addresses"), ranges)
	if wrong != "" {
		add("ipam", stateWarning, text+"; the operator says: "+wrong, "look at the CiliumPodIPPools: they may be full, or not be there")
	} else {
		add("ipam", stateOK, text, "")
	}
}

func (a *Agent) serviceStatus(add addFunc) {
	if !a.cfg.KubeProxy {
		add("services", stateDisabled, "kube-proxy-replacement is off", "")
		return
	}
	frontends, backends, refused := a.services.state()
	text := fmt.Sprintf("%s, %s", count(frontends, "frontend"), count(backends, "backend"))
	var wrong []string
	if a.file != nil && a.file.Err() != nil {
		wrong = append(wrong, a.file.Err().Error()+"; the services of the last good file stay")
	}
	if a.listed != nil {
		for _, err := range a.listed.Problems() {
			wrong = append(wrong, "services file: "+err.Error())
		}
	}
	if err := a.serviceSync.Err(); err != nil {
		wrong = append(wrong, "not in force: "+err.Error())
	}
	if err := a.checkSync.Err(); err != nil {
		wrong = append(wrong, err.Error())
	}
	unanswered := a.services.unanswered()
	for _, port := range slices.Sorted(gomaps.Keys(unanswered)) {
		wrong = append(wrong, unanswered[port].Error())
	}
	switch {
	case a.orphans == nil && !a.kernel.Destroy:
		text += "; sockets stay connected to removed backends: " + socket.ErrUnsupported.Error()
	case a.orphans != nil && a.orphans.failed.Err() != nil:
		wrong = append(wrong, "sockets of removed backends are not ended: "+a.orphans.failed.Err().Error())
	}
	if a.cgroup == "" {
		wrong = append(wrong, cgroup.ErrNone.Error()+": no process reaches a service")
	}
	for _, id := range slices.Sorted(gomaps.Keys(refused)) {
		wrong = append(wrong, fmt.Sprintf("service %d is not served: %v", id, refused[id]))
	}
	switch n := len(wrong); {
	case n > 0:
		add("services", stateWarning, text+", "+count(n, "error")+":\n"+strings.Join(wrong[:min(n, mostWrong)], "\n"),
			"correct the file or the service; `hypha service list` shows what there is, `hypha service update` and `delete` change it")
	default:
		add("services", stateOK, text, "")
	}
}

// mostWrong is how many errors of one kind are told in full.
const mostWrong = 5

func (a *Agent) datapathStatus(s *agentv1.StatusResponse, add addFunc) {
	part := func(name string, err error, fine, remedy string) {
		if err != nil {
			add(name, stateFailure, err.Error(), remedy)
		} else {
			add(name, stateOK, fine, "")
		}
	}
	fine := "programs attached"
	if n, at := a.devices.Overruns(); n > 0 {
		fine += fmt.Sprintf("; the kernel's messages overran %d times, the last at %s: all devices were read anew", n, at.Format("15:04:05"))
	}
	part("devices", a.deviceSync.Err(), fine, "the agent tries again; look at the devices with `ip link`, or set --devices")
	part("kernel objects", a.repairs.failed.Err(), a.repairs.done(), "the agent tries again every few seconds; restart it if that does not help")
	part("routes", a.routeSync.Err(), fmt.Sprintf("%d to other nodes", a.cluster.routes.Snapshot().Len()), "remove the route that stands in the way, or choose another pool")
	rows, waiting, failed := a.cache.Status()
	switch {
	case failed > 0:
		add("addresses", stateFailure, fmt.Sprintf("%d of %d could not be written: their packets are dropped", failed, rows), "raise bpf-ipcache-max and restart the agent")
	default:
		add("addresses", stateOK, fmt.Sprintf("%d known, %d waiting for their identity", rows, waiting), "")
	}
	ms, err := a.mapStatus()
	if err != nil {
		add("maps", stateFailure, err.Error(), "see the agent's log")
		return
	}
	s.Maps = ms
	var full []string
	for _, m := range ms {
		if strings.HasPrefix(m.Type, "LRU") || strings.Contains(m.Type, "Array") || strings.Contains(m.Type, "array") {
			continue
		}
		if nearlyFull(m) {
			full = append(full, fmt.Sprintf("%s %d/%d", m.Name, m.Entries, m.MaxEntries))
		}
	}
	if len(full) > 0 {
		add("maps", stateWarning, "nearly full: "+strings.Join(full, ", "), "raise bpf-map-dynamic-size-ratio or the map's own option and restart the agent; what does not fit is dropped")
	} else {
		add("maps", stateOK, fmt.Sprintf("%d pinned under %s", len(ms), a.paths.Maps()), "")
	}
	a.loadStatus(ms, add)
}

func (a *Agent) mapStatus() ([]*agentv1.MapStatus, error) {
	list, err := a.maps.List()
	if err != nil {
		return nil, err
	}
	out := make([]*agentv1.MapStatus, 0, len(list))
	for _, m := range list {
		st := &agentv1.MapStatus{Name: m.Name, Type: m.Type, Entries: m.Entries, MaxEntries: m.MaxEntries, Pin: m.Pin, KeySize: m.KeySize, ValueSize: m.ValueSize, Errors: m.Errors}
		if m.LastErr != nil {
			st.LastError = m.LastErr.Error()
		}
		out = append(out, st)
	}
	return out, nil
}

// count is a number with its noun, whose plural ends in s.
func count[N int | uint64](n N, noun string) string { return counted(n, noun, noun+"s") }

func counted[N int | uint64](n N, one, many string) string {
	if n == 1 {
		many = one
	}
	return fmt.Sprintf("%d %s", n, many)
}
