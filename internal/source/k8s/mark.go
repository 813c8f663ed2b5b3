package k8s

import (
	"context"
	"fmt"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	"github.com/hypha-net/hypha/internal/model"
)

// A number that nobody uses is marked before it is removed. Who takes it into use again takes the mark away: then it is not removed.

// noteMark takes in whether a number is marked.
func (d *Identities) noteMark(id model.IdentityID, o *ciliumv2.CiliumIdentity) {
	_, marked := o.Annotations[ciliumv2.IdentityMark]
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !marked:
		delete(d.marked, id)
	case d.held[id] != nil:
		d.keep(id)
	default:
		d.marked[id] = true
	}
}

// keep takes the mark of a number in use away, in the end.
func (d *Identities) keep(id model.IdentityID) {
	d.s.run(func(ctx context.Context) { retry(ctx, func() error { return d.unmark(ctx, id) }) })
}

// rescue takes the mark of a number away that somebody is about to use: at once, as it may be removed any moment.
func (d *Identities) rescue(ctx context.Context, id model.IdentityID) {
	if d.unmark(ctx, id) != nil {
		d.keep(id)
	}
}

func (d *Identities) unmark(ctx context.Context, id model.IdentityID) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := d.s.clients.cilium.Patch(types.MergePatchType).Resource("ciliumidentities").Name(strconv.FormatUint(uint64(id), 10)).
		Body(fmt.Appendf(nil, `{"metadata":{"annotations":{%q:null}}}`, ciliumv2.IdentityMark)).Do(ctx).Error()
	if apierrors.IsNotFound(err) { // too late: it is created again
		return nil
	}
	return err
}
