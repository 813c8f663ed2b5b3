package device

import (
	"context"
	"errors"

	"github.com/hypha-net/hypha/internal/datapath/loader"
	"github.com/hypha-net/hypha/internal/datapath/maps"
)

// Target writes the rows of outside devices and attaches the program to them. It is a table.Target for a Table.
type Target struct {
	Maps   *maps.Maps
	Loader *loader.Loader
}

// Update writes the row of a device, then attaches to it.
func (t *Target) Update(_ context.Context, index uint32, d Device) error {
	err := t.Maps.PutDevice(index, maps.Device{Masq4: d.Masq4, Masq6: d.Masq6, MTU: uint32(d.MTU), L3: d.L3})
	if err != nil {
		return err
	}
	return t.Loader.AttachDevice(int(index))
}

// Delete detaches from a device and removes its row.
func (t *Target) Delete(_ context.Context, index uint32) error {
	return errors.Join(t.Loader.DetachDevice(int(index)), t.Maps.DeleteDevice(index))
}

// Prune does that for all devices that no row of the table asks for.
func (t *Target) Prune(ctx context.Context, want map[uint32]Device) error {
	rows, err := t.Maps.Devices()
	for index := range rows {
		if _, ok := want[index]; !ok {
			err = errors.Join(err, t.Delete(ctx, index))
		}
	}
	return errors.Join(err, t.Loader.Prune(func(a loader.Attachment) bool {
		_, ok := want[uint32(a.IfIndex)]
		return a.Role != loader.Device || ok
	}))
}
