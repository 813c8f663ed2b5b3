package service

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	layout "github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/datapath/event"
	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/model"
	hostns "github.com/hypha-net/hypha/internal/netns"
)

// Each translation is told once: where a socket goes, and once where its answers come from; datagrams after the first are
// not. What is told and what is lost is all there was, also when nobody reads.
func TestEvents(t *testing.T) {
	r := newRig(t, maps.Config{Ring: 4096}, layout.ConfigTrace|layout.ConfigEvents)
	r.serve(1)
	r.put(balance(front(vip[0], 80, udp), 1, 1), balance(front(vip[0], 81, tcp), 2))
	to := netip.AddrPortFrom(vip[0], 80)
	reader, err := event.New(event.Deps{Log: slog.New(slog.DiscardHandler), Maps: r.m})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	events, done := make(chan model.Event, 1000), make(chan error, 1)
	go func() { done <- reader.Run(ctx, func(e model.Event) { events <- e }, func(int, uint64) {}) }()
	var netns uint64
	must(t, r.ns.Do(func() (err error) {
		if netns, err = hostns.Cookie(); err != nil {
			return err
		}
		s, err := open(0, udp, false)
		if err != nil {
			return err
		}
		defer s.close()
		for range 5 {
			if _, err := s.send(to); err != nil {
				return err
			}
		}
		return nil
	}))
	if _, err := r.call(netip.AddrPortFrom(vip[0], 81), tcp); err == nil {
		t.Error("no backend, but a connection")
	}
	var got []model.Event
	for len(got) < 5 {
		select {
		case e := <-events:
			got = append(got, e)
		case <-time.After(patience):
			t.Fatalf("only %d events: %+v", len(got), got)
		}
	}
	slices.SortStableFunc(got, func(a, b model.Event) int { return a.Time.Compare(b.Time) }) // the thread may move between CPUs
	time.Sleep(100 * time.Millisecond)
	cancel()
	must(t, <-done)
	if len(events) != 0 {
		t.Errorf("%d events too many: %+v", len(events), <-events)
	}
	cookie := got[0].Socket
	for i, want := range []model.Event{
		{Type: model.EventSock, Code: model.SockPreFwd, Dst: vip[0], DstPort: 80},
		{Type: model.EventSock, Code: model.SockPostFwd, Dst: place(0, 1), DstPort: 8080},
		{Type: model.EventSock, Code: model.SockPreRev, Src: place(0, 1), SrcPort: 8080},
		{Type: model.EventSock, Code: model.SockPostRev, Src: vip[0], SrcPort: 80},
		{Type: model.EventDrop, Code: layout.DropNoService, Dst: vip[0], DstPort: 81},
	} {
		e := got[i]
		if e.Type != want.Type || e.Code != want.Code || e.Src != want.Src || e.SrcPort != want.SrcPort || e.Dst != want.Dst || e.DstPort != want.DstPort {
			t.Errorf("event %d: %+v, want %+v", i, e, want)
		}
		if (e.Socket == cookie) != (i < 4) || e.Cgroup == 0 || netns != 0 && e.Netns != netns {
			t.Errorf("event %d: socket %d, cgroup %d, netns %d (%d)", i, e.Socket, e.Cgroup, e.Netns, netns)
		}
	}
	// Nobody reads now: the rings of 4096 bytes fill.
	const calls = 300
	must(t, r.ns.Do(func() error {
		for range calls {
			if _, err := call(to, udp, false); err != nil {
				return err
			}
		}
		return nil
	}))
	counts, err := r.m.EventCounts()
	must(t, err)
	var stored, lost uint64
	for _, c := range counts {
		stored, lost = stored+c.Stored, lost+c.Lost
	}
	if want := uint64(5 + 4*calls); stored+lost != want || lost == 0 {
		t.Errorf("%d stored + %d lost, want %d", stored, lost, want)
	}
}
