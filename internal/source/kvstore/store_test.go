package kvstore

import (
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/hypha-net/hypha/internal/model"
)

var byString = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmpopts.EquateEmpty(),
}

func TestTwoNodes(t *testing.T) {
	s1, config := pair(t)
	s2 := ready(t, open(t, config("node2")))
	ctx := testContext(t)

	for i, s := range []*Store{s1, s2} {
		if err := s.Nodes().Publish(testNode(s.cfg.NodeName, byte(i+1))); err != nil {
			t.Fatal(err)
		}
	}
	row := model.IPEntry{Prefix: netip.MustParsePrefix("10.0.2.7/32"), Identity: 300, Tunnel: netip.MustParseAddr("192.0.2.2"),
		Name: "web", Namespace: "prod", NamedPorts: []model.NamedPort{{Name: "http", Port: 80, Proto: 6}}}
	if err := s2.IPs().Publish(row); err != nil {
		t.Fatal(err)
	}
	if err := s2.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Store{s1, s2} {
		for _, n := range []string{"node1", "node2"} {
			eventually(t, 5*time.Second, func() error { return has(s.Nodes().Table().Get, n) })
		}
	}
	eventually(t, 5*time.Second, func() error { return has(s1.IPs().Table().Get, row.Prefix) })
	got, _ := s1.IPs().Table().Get(row.Prefix)
	row.Source, row.NoMasq = model.IPSourceKVStore, true
	if d := cmp.Diff(row, got, byString); d != "" {
		t.Error(d)
	}
	if n := s2.IPs().Table().Snapshot().Len(); n != 0 {
		t.Errorf("a node sees %d own rows", n)
	}
	ls := labels(t, "id=app1", "io.kubernetes.pod.namespace=default")
	id1, isNew1, err1 := s1.Identities().Allocate(ctx, ls)
	id2, isNew2, err2 := s2.Identities().Allocate(ctx, ls)
	if err1 != nil || err2 != nil || id1 != id2 || !isNew1 || isNew2 || id1 < 256 {
		t.Errorf("identities %d %v %v, %d %v %v", id1, isNew1, err1, id2, isNew2, err2)
	}
	eventually(t, 5*time.Second, func() error { return has(s2.Identities().Table().Get, id1) })

	s2.IPs().Withdraw(row.Prefix)
	eventually(t, 5*time.Second, func() error {
		if has(s1.IPs().Table().Get, row.Prefix) == nil {
			return os.ErrExist
		}
		return nil
	})
	if st := s2.Status(); !st.Connected || st.Pending != 0 || st.Lease == 0 || !st.Complete || st.Err != "" {
		t.Errorf("%+v", st)
	}
}

func TestKV(t *testing.T) {
	s := ready(t, open(t, embedded(t, "node1")))
	ctx := testContext(t)
	if _, err := s.Get(ctx, "none"); err == nil {
		t.Error("got what is not there")
	}
	must[int64](t)(s.Set(ctx, "x/1", []byte("one")))
	must[int64](t)(s.Set(ctx, "x/2", []byte("two")))
	if kv := must[KV](t)(s.Get(ctx, "x/1")); string(kv.Value) != "one" {
		t.Errorf("%+v", kv)
	}
	if kvs := must[[]KV](t)(s.List(ctx, "x/")); len(kvs) != 2 {
		t.Errorf("%+v", kvs)
	}
	if all := must[[]KV](t)(s.List(ctx, "")); len(all) < 3 {
		t.Errorf("%d keys in all", len(all))
	}
	if n := must[int64](t)(s.Delete(ctx, "x/", true)); n != 2 {
		t.Errorf("deleted %d", n)
	}
	if _, err := s.Delete(ctx, "", true); err == nil {
		t.Error("deleted everything")
	}
}
