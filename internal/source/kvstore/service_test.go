package kvstore

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/source/state"
)

func testService(id model.ServiceID, frontend, owner string) StoredService {
	ap := netip.MustParseAddrPort(frontend)
	return StoredService{Owner: owner, Service: model.Service{ID: id, Name: "web", Frontend: model.Frontend{Addr: ap.Addr(), Port: ap.Port(), Proto: model.ProtoTCP},
		Backends: []model.Backend{{Addr: netip.MustParseAddr("10.0.0.5"), Port: 8080, Proto: model.ProtoTCP, Weight: 3, State: model.BackendTerminating}}}}
}

// put stores a service that nothing stands against.
func put(t testing.TB, s *Store, svc StoredService) (model.ServiceID, bool) {
	t.Helper()
	id, created, err := s.Services().Put(testContext(t), svc)
	if err != nil {
		t.Fatal(err)
	}
	return id, created
}

func TestServicePut(t *testing.T) {
	s := ready(t, open(t, embedded(t, "node1")))
	ctx := testContext(t)
	v := s.Services()
	if id, created := put(t, s, testService(7, "10.96.0.1:80", "")); id != 7 || !created {
		t.Fatal(id, created)
	}
	eventually(t, 5*time.Second, func() error { return has(v.Table().Get, 7) })
	if got, _ := v.Table().Get(7); got.Frontend != testService(7, "10.96.0.1:80", "").Frontend || got.Backends[0].State != model.BackendTerminating || got.Backends[0].Weight != 3 {
		t.Errorf("%+v", got)
	}
	if id, created := put(t, s, testService(7, "10.96.0.1:80", "")); id != 7 || created { // again
		t.Error(id, created)
	}
	if id, created := put(t, s, testService(0, "10.96.0.1:80", "")); id != 7 || created { // by its frontend
		t.Error(id, created)
	}
	if id, created := put(t, s, testService(0, "10.96.0.2:80", "")); id != 8 || !created {
		t.Error(id, created)
	}
	for _, bad := range []struct {
		svc  StoredService
		is   error
		want string
	}{
		{testService(9, "10.96.0.1:80", ""), ErrTaken, "frontend 10.96.0.1:80/TCP is taken by service 7 (10.96.0.1:80/TCP, web)"},
		{testService(7, "10.96.0.9:80", ""), ErrTaken, "number 7 is taken by service 7 (10.96.0.1:80/TCP, web)"},
		{testService(7, "10.96.0.1:80", state.FileOwner("n2")), ErrNotOurs, "belongs to somebody else"},
	} {
		if _, _, err := v.Put(ctx, bad.svc); !errors.Is(err, bad.is) || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("got %v, want %q", err, bad.want)
		}
	}
	put(t, s, testService(20, "10.96.0.3:80", state.FileOwner("n2")))
	if _, _, err := v.Put(ctx, testService(20, "10.96.0.3:80", "")); !errors.Is(err, ErrNotOurs) || !strings.Contains(err.Error(), "from the services file of node n2") {
		t.Error(err)
	}
	if _, err := v.Delete(ctx, "", 20); !errors.Is(err, ErrNotOurs) {
		t.Error(err)
	}
	if n, err := v.Delete(ctx, "", 7, 99); n != 1 || err != nil {
		t.Error(n, err)
	}
	eventually(t, 5*time.Second, func() error {
		if has(v.Table().Get, 7) == nil {
			return errors.New("still there")
		}
		return nil
	})
	put(t, s, testService(0, "10.96.0.1:80", "")) // the frontend is free again, under another number
	if kvs := must[[]KV](t)(s.List(ctx, serviceFrontend)); len(kvs) != 3 {
		t.Errorf("%v", kvs)
	}
}

// A number that was given back rests: nobody gets it, on no node, who does not ask for it.
func TestServiceNumberRests(t *testing.T) {
	s, config := pair(t)
	other := ready(t, open(t, config("node2")))
	put(t, s, testService(1, "10.96.0.1:80", ""))
	must[int](t)(s.Services().Delete(testContext(t), "", 1))
	eventually(t, 5*time.Second, func() error {
		if n := other.Services().Table().Snapshot().Len(); n != 0 {
			return fmt.Errorf("%d services", n)
		}
		return nil
	})
	if id, _ := put(t, other, testService(0, "10.96.0.2:80", "")); id == 1 {
		t.Error("reused at once")
	}
	if id, created := put(t, s, testService(1, "10.96.0.3:80", "")); id != 1 || !created {
		t.Error("not given to who asks for it")
	}
	if kvs := must[[]KV](t)(s.List(testContext(t), serviceFreed)); len(kvs) != 0 {
		t.Errorf("rests though in use: %v", kvs)
	}
}

// Nodes that want one frontend at once: one gets it, the others hear who has it. Those that want different ones get different
// numbers.
func TestServiceRace(t *testing.T) {
	s, config := pair(t)
	stores := []*Store{s, ready(t, open(t, config("node2"))), ready(t, open(t, config("node3")))}
	ctx := testContext(t)
	const rounds = 20
	var mu sync.Mutex
	byID := map[model.ServiceID]string{}
	won := map[string]int{}
	var wg sync.WaitGroup
	for n, s := range stores {
		wg.Go(func() {
			for i := range rounds {
				shared := fmt.Sprintf("10.96.1.%d:80", i)
				svc := testService(0, shared, state.FileOwner(fmt.Sprint("node", n+1)))
				id, _, err := s.Services().Put(ctx, svc)
				mu.Lock()
				switch {
				case err == nil:
					won[shared]++
					byID[id] = shared
				case !errors.Is(err, ErrNotOurs) && !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), "from the services file of node"):
					t.Error(err)
				}
				mu.Unlock()
				own := fmt.Sprintf("10.96.2%d.%d:80", n, i)
				if id, _, err = s.Services().Put(ctx, testService(0, own, "")); err != nil {
					t.Error(err)
				}
				mu.Lock()
				if had, ok := byID[id]; ok {
					t.Errorf("%s and %s both have number %d", had, own, id)
				}
				byID[id] = own
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(won) != rounds || len(byID) != 4*rounds {
		t.Errorf("%d shared frontends, %d services", len(won), len(byID))
	}
	for f, n := range won {
		if n != 1 {
			t.Errorf("%d nodes believe to have %s", n, f)
		}
	}
	for _, s := range stores {
		eventually(t, 10*time.Second, func() error {
			snap := s.Services().Table().Snapshot()
			if snap.Len() != len(byID) {
				return fmt.Errorf("%d of %d", snap.Len(), len(byID))
			}
			for id, f := range byID {
				if v, _ := snap.Get(id); v.Frontend.String() != f+"/TCP" {
					return fmt.Errorf("number %d is %s, not %s", id, v.Frontend, f)
				}
			}
			return nil
		})
	}
}

// What was known is served while the store is away, and only the store's word removes it; new services wait.
func TestServiceStoreAway(t *testing.T) {
	s, config := pair(t)
	cfg := config("node2")
	put(t, s, testService(1, "10.96.0.1:80", ""))
	put(t, s, testService(2, "10.96.0.2:80", ""))
	other := ready(t, open(t, cfg))
	if n := other.Services().Table().Snapshot().Len(); n != 2 {
		t.Fatal(n)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	p := newProxy(t, strings.TrimPrefix(cfg.Endpoints[0], "https://"))
	cfg.Endpoints = []string{"https://" + p.addr()}
	p.hold()
	other = open(t, cfg)
	if snap := other.Services().Table().Snapshot(); snap.Len() != 2 || snap.Complete() {
		t.Errorf("%d services, complete %v", snap.Len(), snap.Complete())
	}
	began := time.Now()
	errs := other.Services().PutAll(testContext(t), []StoredService{testService(0, "10.96.0.3:80", ""), testService(0, "10.96.0.4:80", "")})
	for _, err := range errs {
		if !errors.Is(err, ErrUnreachable) {
			t.Errorf("%v", err)
		}
	}
	if d := time.Since(began); d > 20*time.Second {
		t.Errorf("took %v to say so", d)
	}
	must[int](t)(s.Services().Delete(testContext(t), "", 2))
	p.release()
	ready(t, other)
	eventually(t, 30*time.Second, func() error {
		if snap := other.Services().Table().Snapshot(); snap.Len() != 1 || !snap.Complete() {
			return fmt.Errorf("%d services, complete %v", snap.Len(), snap.Complete())
		}
		return nil
	})
}

// What somebody else wrote into the store is not believed; a key that a service left behind does not block its frontend.
func TestServiceDamaged(t *testing.T) {
	s := ready(t, open(t, embedded(t, "node1")))
	ctx := testContext(t)
	put(t, s, testService(1, "10.96.0.1:80", ""))
	for key, value := range map[string]string{serviceID + "2": "{", serviceID + "3": `{"id":4}`, serviceID + "x": "{}", serviceID + "0": `{"id":0}`,
		frontendKey(testService(0, "10.96.0.5:80", "").Frontend): "77"} {
		must[int64](t)(s.Set(ctx, key, []byte(value)))
	}
	if id, created := put(t, s, testService(0, "10.96.0.5:80", "")); id != 77 || !created {
		t.Error(id, created)
	}
	if id, _ := put(t, s, testService(5, "10.96.0.6:80", "")); id != 5 {
		t.Error(id)
	}
	eventually(t, 5*time.Second, func() error { return has(s.Services().Table().Get, 5) })
	if n := s.Services().Table().Snapshot().Len(); n != 3 {
		t.Errorf("%d services", n)
	}
	if _, _, err := s.Services().Put(ctx, testService(2, "10.96.0.7:80", "")); err == nil || !strings.Contains(err.Error(), "hypha/service/v1/id/2 is unreadable, delete it") {
		t.Error(err)
	}
	if n, err := s.Services().Delete(ctx, "", 2); n != 1 || err != nil {
		t.Error(n, err)
	}
	big := testService(0, "10.96.0.8:80", "")
	for i := range 60_000 {
		big.Backends = append(big.Backends, model.Backend{Addr: netip.AddrFrom4([4]byte{10, 9 + byte(i>>16), byte(i >> 8), byte(i)}), Port: 80, Proto: model.ProtoTCP})
	}
	if _, _, err := s.Services().Put(ctx, big); err == nil || !strings.Contains(err.Error(), "use fewer backends") {
		t.Error(err)
	}
}
