package servicefile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/hypha-net/hypha/internal/model"
)

// entry is one service as the file has it.
type entry struct {
	ID            model.ServiceID `json:"id"`
	Name          string          `json:"name"`
	Namespace     string          `json:"namespace"`
	Type          string          `json:"type"`
	Frontend      string          `json:"frontend"`
	Backends      []backend       `json:"backends"`
	Affinity      string          `json:"affinity"` // a duration: 3h
	External      string          `json:"externalTrafficPolicy"`
	Internal      string          `json:"internalTrafficPolicy"`
	HealthPort    uint16          `json:"healthCheckNodePort"`
	Ranges        []string        `json:"sourceRanges"`
	RangesPolicy  string          `json:"sourceRangesPolicy"` // allow (default) or deny
	LoadBalancing string          `json:"selection"`
	Distribution  string          `json:"trafficDistribution"`
}

// backend is one backend: its address, or an object.
type backend struct {
	Address string   `json:"address"`
	State   string   `json:"state"`
	Weight  *uint16  `json:"weight"`
	Node    string   `json:"node"`
	Zone    string   `json:"zone"`
	Hints   []string `json:"hints"` // zones that it is for
}

// UnmarshalJSON reads both forms.
func (b *backend) UnmarshalJSON(data []byte) error {
	if json.Unmarshal(data, &b.Address) == nil {
		return nil
	}
	type plain backend
	return strict(data, (*plain)(b))
}

func strict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows")
	}
	return nil
}

// Parse reads a list of services, YAML or JSON. An error says which service and why; then nothing of the file counts. An empty
// document is an error: no services are written [].
func Parse(data []byte) ([]model.Service, error) {
	doc, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, err
	}
	var list []json.RawMessage
	if err := json.Unmarshal(doc, &list); err != nil {
		return nil, errors.New("not a list of services: want [] or `- name: ...`")
	}
	if list == nil {
		return nil, errors.New("empty: a list without services is written []")
	}
	out := make([]model.Service, 0, len(list))
	frontends, ids := map[model.Frontend]int{}, map[model.ServiceID]int{}
	for i, raw := range list {
		s, err := parseEntry(raw)
		if err != nil {
			return nil, fmt.Errorf("service %d: %w", i+1, err)
		}
		if j, dup := frontends[s.Frontend]; dup {
			return nil, fmt.Errorf("service %d: frontend %s is service %d's already", i+1, s.Frontend, j)
		}
		if j, dup := ids[s.ID]; dup && s.ID != 0 {
			return nil, fmt.Errorf("service %d: id %d is service %d's already", i+1, s.ID, j)
		}
		frontends[s.Frontend], ids[s.ID] = i+1, i+1
		out = append(out, s)
	}
	return out, nil
}

func parseEntry(raw []byte) (s model.Service, err error) {
	var e entry
	if err := strict(raw, &e); err != nil {
		return s, err
	}
	if e.Frontend == "" {
		return s, errors.New("no frontend: want frontend: 10.96.0.1:80/TCP")
	}
	s = model.Service{ID: e.ID, Name: e.Name, Namespace: e.Namespace, HealthPort: e.HealthPort}
	field := func(name string, ferr error) {
		if ferr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", name, ferr))
		}
	}
	var ferr error
	if e.Type != "" {
		s.Type, ferr = model.ParseServiceType(e.Type)
		field("type", ferr)
	}
	s.Frontend, ferr = model.ParseFrontend(e.Frontend, model.ProtoTCP)
	field("frontend", ferr)
	for i, b := range e.Backends {
		back, ferr := b.parse(s.Frontend.Proto)
		field(fmt.Sprintf("backend %d", i+1), ferr)
		s.Backends = append(s.Backends, back)
	}
	if e.Affinity != "" {
		s.Affinity, ferr = time.ParseDuration(e.Affinity)
		field("affinity", ferr)
	}
	s.ExternalLocal, ferr = model.ParseTrafficPolicy(e.External)
	field("externalTrafficPolicy", ferr)
	s.InternalLocal, ferr = model.ParseTrafficPolicy(e.Internal)
	field("internalTrafficPolicy", ferr)
	for _, r := range e.Ranges {
		p, ferr := netip.ParsePrefix(r)
		field("sourceRanges", ferr)
		s.Ranges = append(s.Ranges, p)
	}
	switch e.RangesPolicy {
	case "", "allow":
	case "deny":
		s.RangesDeny = true
	default:
		field("sourceRangesPolicy", fmt.Errorf("%q: want allow or deny", e.RangesPolicy))
	}
	s.Select, ferr = model.ParseSelection(e.LoadBalancing)
	field("selection", ferr)
	s.Prefer, ferr = model.ParsePreference(e.Distribution)
	field("trafficDistribution", ferr)
	return s, err
}

// parse reads a backend; without a protocol of its own it has the frontend's. A weight of 0 takes it out, as in the field.
func (b *backend) parse(proto uint8) (model.Backend, error) {
	ap, proto, err := model.ParseAddress(b.Address, proto)
	out := model.Backend{Addr: ap.Addr(), Port: ap.Port(), Proto: proto, Node: b.Node, Zone: b.Zone, Hints: model.NewZones(b.Hints...)}
	if b.State != "" {
		var serr error
		out.State, serr = model.ParseBackendState(b.State)
		err = errors.Join(err, serr)
	}
	if b.Weight != nil {
		if out.Weight = *b.Weight; out.Weight == 0 {
			out.State = model.BackendMaintenance
		}
	}
	return out, err
}
