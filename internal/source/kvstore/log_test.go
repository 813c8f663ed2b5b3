package kvstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// lines is a log that is read while it is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// A store that is away, whoever asks and however often, is told in a few lines, and that it is back in another.
func TestAwayIsSaidOnce(t *testing.T) {
	s1, config := pair(t)
	cfg := config("node2")
	p := newProxy(t, strings.TrimPrefix(cfg.Endpoints[0], "https://"))
	cfg.Endpoints = []string{"https://" + p.addr()}
	cfg.CheckEvery, cfg.Retry, cfg.GCInterval = 10*time.Millisecond, 10*time.Millisecond, 20*time.Millisecond
	log := &lines{}
	s2, err := Open(testContext(t), cfg, Deps{Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s2.Close() })
	ready(t, s2)
	before := strings.Count(log.String(), "\n")
	p.refuse(true)
	for range 100 { // those who want something ask too
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, _, err := s2.Identities().Allocate(ctx, labels(t, "app=new"))
		cancel()
		if err == nil {
			t.Fatal("an identity from nowhere")
		}
	}
	eventually(t, time.Minute, func() error {
		if _, times := s2.health.away.Since(); times < 3 {
			return fmt.Errorf("%d attempts", times)
		}
		return nil
	})
	during := strings.Count(log.String(), "\n") - before
	if during < 1 || during > 12 {
		t.Errorf("%d lines about a store that is away:\n%s", during, log)
	}
	p.refuse(false)
	eventually(t, time.Minute, func() error {
		if !s2.Status().Connected || !strings.Contains(log.String(), "kvstore answers again") {
			return errors.New("not back")
		}
		return nil
	})
	if after := strings.Count(log.String(), "\n") - before; after > during+10 {
		t.Errorf("%d lines in all:\n%s", after, log)
	}
	_ = s1
}

// A store that answers but takes no writes is not said to be well.
func TestNoSpace(t *testing.T) {
	s := ready(t, open(t, embedded(t, "node1")))
	ctx := testContext(t)
	alarm := pb.NewMaintenanceClient(s.cli.ActiveConnection())
	member := uint64(s.srv.etcd.Server.MemberID())
	set := func(action pb.AlarmRequest_AlarmAction) {
		t.Helper()
		if _, err := alarm.Alarm(ctx, &pb.AlarmRequest{Action: action, MemberID: member, Alarm: pb.AlarmType_NOSPACE}); err != nil {
			t.Fatal(err)
		}
	}
	set(pb.AlarmRequest_ACTIVATE)
	if err := s.Nodes().Publish(testNode("node1", 1)); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, func() error {
		if st := s.Status(); !st.Connected || !strings.Contains(st.Err, "space exceeded") || st.Pending == 0 {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	set(pb.AlarmRequest_DEACTIVATE)
	eventually(t, 30*time.Second, func() error {
		if st := s.Status(); st.Err != "" || st.Pending != 0 {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
}
