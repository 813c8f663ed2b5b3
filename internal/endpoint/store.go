package endpoint

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/paths"
	"github.com/hypha-net/hypha/internal/source/file"
)

// Record is what the state file of an endpoint holds.
type Record struct {
	Endpoint model.Endpoint `json:"endpoint"`
	Spec     Spec           `json:"spec"`
}

// Store keeps records across restarts of the agent. They need not survive the machine's: the devices do not.
type Store interface {
	// Load returns all records, by number. Damaged ones are left out; what is wrong with them is in damaged. On err nothing can
	// be concluded from a record that is missing.
	Load() (records []Record, damaged, err error)
	Save(Record) error
	// Remove deletes one; a record that is not there is no error.
	Remove(id uint16) error
}

// Files is the Store of an agent: one JSON file per endpoint in this directory.
type Files string

const suffix = ".json"

// Load implements Store.
func (d Files) Load() (records []Record, damaged, err error) {
	names, err := file.Names(string(d), suffix)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		path := filepath.Join(string(d), name)
		var r Record
		one := file.ReadJSON(path, &r)
		if one == nil {
			if why := r.check(name); why != nil {
				one = file.SetAside(path, why)
			}
		}
		var bad *file.DamagedError
		switch {
		case one == nil:
			records = append(records, r)
		case errors.As(one, &bad):
			damaged = errors.Join(damaged, one)
		default:
			err = errors.Join(err, one)
		}
	}
	return records, damaged, err
}

// Save implements Store. The file survives a kill of the agent, not a power cut: a reboot makes it void anyway.
func (d Files) Save(r Record) error {
	return file.ReplaceJSON(d.path(r.Endpoint.ID), r, 0o600)
}

// Remove implements Store.
func (d Files) Remove(id uint16) error { return file.Remove(d.path(id)) }

func (d Files) path(id uint16) string {
	return filepath.Join(string(d), strconv.Itoa(int(id))+suffix)
}

// check says what makes no sense in a record that was read from the file of this name.
func (r *Record) check(name string) error {
	e := &r.Endpoint
	spec := r.Spec
	if err := spec.complete(); err != nil {
		return err
	}
	for _, l := range own(e.Labels) {
		if err := checkLabel(l); err != nil {
			return err
		}
	}
	switch k := spec.Key(); {
	case e.ID == 0 || name != strconv.Itoa(int(e.ID))+suffix:
		return fmt.Errorf("is about endpoint %d", e.ID)
	case k != Key{e.ContainerID, e.IfName} || e.HostIfName != paths.HostIf(k.ContainerID, k.IfName) ||
		e.NetNS != spec.NetNS || e.Name != spec.Name || e.Namespace != spec.Namespace:
		return errors.New("endpoint and spec are not about the same workload")
	case e.HostIfIndex <= 0 || len(e.Addrs()) == 0 || e.Identity == 0:
		return errors.New("has no device, no address or no identity")
	}
	return nil
}
