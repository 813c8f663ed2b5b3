package app

import (
	"context"
	"log/slog"
	"sync"

	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/table"
)

// tenant is one workload's stay under a number.
type tenant struct {
	id        uint16
	container string
	netns     string
}

// owners knows which workload has which network namespace, by the cookie that the programs of sockets see.
type owners struct {
	log       *slog.Logger
	endpoints *table.Table[uint16, model.Endpoint]

	mu       sync.Mutex
	byCookie map[uint64]uint16
}

func newOwners(log *slog.Logger, endpoints *table.Table[uint16, model.Endpoint]) *owners {
	return &owners{log: log, endpoints: endpoints, byCookie: map[uint64]uint16{}}
}

// of is the number of the workload, 0 if it is not known.
func (o *owners) of(cookie uint64) uint16 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.byCookie[cookie]
}

// Run follows the workloads until ctx ends.
func (o *owners) Run(ctx context.Context) error {
	cookies := map[tenant]uint64{}
	for {
		snap := o.endpoints.Snapshot()
		o.look(snap, cookies)
		select {
		case <-ctx.Done():
			return nil
		case <-snap.Changed():
		}
	}
}

// look asks the namespaces of new workloads for their cookies. One that cannot be asked has gone: its flows carry no name.
func (o *owners) look(snap table.Snapshot[uint16, model.Endpoint], cookies map[tenant]uint64) {
	for id, e := range snap.All() {
		who := tenant{id, e.ContainerID, e.NetNS}
		if _, ok := cookies[who]; ok {
			continue
		}
		n, err := netns.CookieAt(e.NetNS)
		if err != nil {
			o.log.Debug("network namespace not asked", "endpoint", id, "err", err)
		}
		cookies[who] = n
	}
	byCookie := make(map[uint64]uint16, len(cookies))
	for who, n := range cookies {
		if e, ok := snap.Get(who.id); !ok || who != (tenant{e.ID, e.ContainerID, e.NetNS}) {
			delete(cookies, who)
		} else if n != 0 {
			byCookie[n] = who.id
		}
	}
	o.mu.Lock()
	o.byCookie = byCookie
	o.mu.Unlock()
}
