package server

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	flowpb "github.com/hypha-net/hypha/api/flow"
)

// mask is a tree of the fields to keep; a nil one keeps all, a field without a tree of its own is kept whole.
type mask map[protoreflect.FieldDescriptor]mask

// newMask compiles the paths of a field mask over a flow, such as "source.pod_name".
func newMask(paths []string) (mask, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	root := mask{}
	for _, p := range paths {
		m, desc := root, (&flowpb.Flow{}).ProtoReflect().Descriptor()
		names := strings.Split(p, ".")
		for i, n := range names {
			fd := desc.Fields().ByName(protoreflect.Name(n))
			if fd == nil {
				return nil, fmt.Errorf("field mask: a flow has no field %q (at %q)", p, n)
			}
			sub, known := m[fd]
			if i == len(names)-1 || known && sub == nil {
				m[fd] = nil // whole
				break
			}
			if fd.Message() == nil || fd.IsList() || fd.IsMap() {
				return nil, fmt.Errorf("field mask: %q: %s has no fields of its own", p, n)
			}
			if !known {
				sub = mask{}
				m[fd] = sub
			}
			m, desc = sub, fd.Message()
		}
	}
	return root, nil
}

// apply returns a flow with the fields of the mask only; parts kept whole are shared with f.
func (m mask) apply(f *flowpb.Flow) *flowpb.Flow {
	if m == nil {
		return f
	}
	out := &flowpb.Flow{}
	m.copy(out.ProtoReflect(), f.ProtoReflect())
	return out
}

func (m mask) copy(dst, src protoreflect.Message) {
	for fd, sub := range m {
		if !src.Has(fd) {
			continue
		}
		if sub == nil {
			dst.Set(fd, src.Get(fd))
			continue
		}
		sub.copy(dst.Mutable(fd).Message(), src.Get(fd).Message())
	}
}
