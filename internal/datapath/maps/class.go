package maps

import (
	"maps"
	"slices"

	"github.com/hypha-net/hypha/internal/model"
)

// PutClasses writes rows of class_v1.
func (m *Maps) PutClasses(rows map[model.IdentityID]model.ClassID) error {
	ks := slices.Sorted(maps.Keys(rows))
	vs := make([]model.ClassID, len(ks))
	for i, k := range ks {
		vs[i] = rows[k]
	}
	return putAll(m.class, ks, vs)
}

// DeleteClasses removes rows of class_v1: from now on the identities are unknown here.
func (m *Maps) DeleteClasses(ids []model.IdentityID) error { return delAll(m.class, ids) }

// Class reads the class of an identity.
func (m *Maps) Class(id model.IdentityID) (model.ClassID, bool, error) {
	return get[model.IdentityID, model.ClassID](m.class, id)
}

// Classes reads all rows.
func (m *Maps) Classes() (map[model.IdentityID]model.ClassID, error) {
	out := map[model.IdentityID]model.ClassID{}
	err := each(m.class, func(k *model.IdentityID, v *model.ClassID) bool {
		out[*k] = *v
		return true
	})
	return out, err
}
