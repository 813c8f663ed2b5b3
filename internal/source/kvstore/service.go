package kvstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"

	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/source/state"
	"github.com/hypha-net/hypha/internal/table"
)

// Errors of Services.
var (
	ErrTaken   = errors.New("is taken")
	ErrNotOurs = errors.New("belongs to somebody else")
)

// StoredService is a service as the cluster knows it.
type StoredService = state.Service

// Services are the services of the cluster. How they are written is in servicewrite.go.
type Services struct {
	s *Store
	f *follower[model.ServiceID, StoredService]

	mu     sync.Mutex
	picked model.ServiceID // the last number that pick proposed
}

// MaxServiceID is the greatest number of a service.
const MaxServiceID model.ServiceID = math.MaxInt32

func newServices(s *Store) *Services {
	v := &Services{s: s}
	v.f = &follower[model.ServiceID, StoredService]{
		s: s, prefix: serviceID, cache: "services.json",
		tab:   table.New[model.ServiceID, StoredService]("services", table.Uint[model.ServiceID]),
		rowOf: func(v StoredService) model.ServiceID { return v.ID },
		parse: parseService,
	}
	v.f.load()
	return v
}

func (v *Services) run(ctx context.Context) { v.f.run(ctx) }

// Table holds the services by number. Whether each may be served is for control to say.
func (v *Services) Table() *table.Table[model.ServiceID, StoredService] { return v.f.tab }

func parseService(key string, value []byte) (model.ServiceID, StoredService, bool, error) {
	var v StoredService
	id, err := strconv.ParseUint(key, 10, 32)
	if err != nil || id == 0 || id > uint64(MaxServiceID) {
		return 0, v, false, fmt.Errorf("service %q: not a number", key)
	}
	if err := json.Unmarshal(value, &v); err != nil {
		return 0, v, false, fmt.Errorf("service %s: %w", key, err)
	}
	if v.ID != model.ServiceID(id) {
		return 0, v, false, fmt.Errorf("service %s: the row is about service %d", key, v.ID)
	}
	return v.ID, v, true, nil
}

func serviceKey(id model.ServiceID) string { return serviceID + strconv.FormatUint(uint64(id), 10) }
func serviceFreedKey(id model.ServiceID) string {
	return serviceFreed + strconv.FormatUint(uint64(id), 10)
}
func frontendKey(f model.Frontend) string { return serviceFrontend + f.String() }
