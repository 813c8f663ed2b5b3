package k8s

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	"github.com/hypha-net/hypha/internal/fault"
)

// judges tell a policy's author, in its status, whether it is understood. All agents come to the same judgement, so each waits a
// random time in which another one may have written it, and then writes only what is not there.
type judges struct {
	s      *Store
	failed *fault.Fault
	spread time.Duration

	mu   sync.Mutex
	todo map[ruling]verdict
}

type ruling struct {
	resource string
	name
}

// verdict is what is to be said about a version of a policy; nil message is understood.
type verdict struct {
	version, uid string
	condition    ciliumv2.Condition
}

func newJudges(s *Store) *judges {
	return &judges{s: s, failed: fault.New(s.log, "status of policies not written", "status of policies written again"), spread: 2 * time.Second, todo: map[ruling]verdict{}}
}

// note takes in how the present version of a policy was judged.
func (j *judges) note(resource string, n name, o *document, err error) {
	want := ciliumv2.Condition{Type: ciliumv2.ConditionValid, Status: "True", Reason: "Understood"}
	if err != nil {
		want.Status, want.Reason, want.Message = "False", "NotUnderstood", err.Error()
		if len(want.Message) > 4096 {
			want.Message = want.Message[:4096]
		}
	}
	who := ruling{resource, n}
	j.mu.Lock()
	defer j.mu.Unlock()
	if o.valid != nil && o.valid.Status == want.Status && o.valid.Message == want.Message {
		delete(j.todo, who)
		return
	}
	_, waiting := j.todo[who]
	j.todo[who] = verdict{o.ResourceVersion, string(o.UID), want}
	if !waiting {
		j.s.run(func(ctx context.Context) { j.write(ctx, who) })
	}
}

// write says it, if by then it still has to be said.
func (j *judges) write(ctx context.Context, who ruling) {
	for pause := time.Duration(rand.Int64N(int64(j.spread))); ; pause = min(2*pause+100*time.Millisecond, time.Minute) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		j.mu.Lock()
		v, ok := j.todo[who]
		j.mu.Unlock()
		if !ok {
			return
		}
		err := j.patch(ctx, who, v)
		if apierrors.IsNotFound(err) {
			err = nil
		}
		if !apierrors.IsConflict(err) { // a newer version is on its way, and with it another verdict
			j.failed.Note(err)
		}
		j.mu.Lock()
		if err == nil && j.todo[who] == v {
			delete(j.todo, who)
			j.mu.Unlock()
			return
		}
		j.mu.Unlock()
	}
}

func (j *judges) patch(ctx context.Context, who ruling, v verdict) error {
	v.condition.LastTransitionTime = metav1.Now()
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]string{"resourceVersion": v.version, "uid": v.uid},
		"status":   ciliumv2.PolicyStatus{Conditions: []ciliumv2.Condition{v.condition}},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return j.s.clients.documents.Patch(types.MergePatchType).NamespaceIfScoped(who.namespace, who.namespace != "").
		Resource(who.resource).Name(who.name.name).SubResource("status").Body(body).Do(ctx).Error()
}
