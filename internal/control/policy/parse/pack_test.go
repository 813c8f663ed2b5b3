package parse

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	"github.com/hypha-net/hypha/internal/model"
)

// A packed policy is the same one, in less space; what is broken is refused.
func TestPack(t *testing.T) {
	var wg sync.WaitGroup
	for n := range 50 {
		wg.Go(func() {
			app := v2.LabelSelector{MatchExpressions: []v2.Requirement{{Key: "k8s:app", Operator: v2.OpIn, Values: []string{fmt.Sprint("a", n)}}}}
			ref := model.PolicyRef{Kind: "NetworkPolicy", Namespace: "shop", Name: fmt.Sprint("p", n)}
			ref.Labels = ResourceLabels(ref, "2b0aa6f9-1cbb-4a4f-b5f1-6e0f7d8f2f11", nil)
			p := Policy{Key: "NetworkPolicy/shop/" + ref.Name, Ref: ref, Rules: []v2.Rule{{EndpointSelector: &app,
				Ingress: []v2.IngressRule{{}, {FromEndpoints: []v2.LabelSelector{app}, ToPorts: []v2.PortRule{{Ports: []v2.PortProtocol{{Port: "80", Protocol: v2.ProtoTCP}}}}}}}}}
			small, err := Pack(p)
			if err != nil {
				t.Error(err)
				return
			}
			large, err := json.Marshal(p)
			if err != nil {
				t.Error(err)
			}
			if 3*len(small) > len(large) || cap(small) > len(small)+32 {
				t.Errorf("%d bytes (room for %d) of %d", len(small), cap(small), len(large))
			}
			for _, form := range [][]byte{small, large} {
				got, err := Read(form)
				if d := cmp.Diff(p, got, cmpopts.EquateEmpty()); err != nil || d != "" {
					t.Error(err, d)
				}
			}
			for _, broken := range [][]byte{nil, {}, {packed}, small[:len(small)/2], small[1:], large[1:]} {
				if got, err := Read(broken); err == nil {
					t.Errorf("%q read as %+v", broken, got)
				}
			}
		})
	}
	wg.Wait()
}
