package kvstore

import (
	"crypto/tls"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/hypha-net/hypha/internal/testutil/score"
)

// TestCase25Certificates: certificates made while the clock was a day off are good now, and those that are not yet good are made
// anew. Both ends must agree: the node's own clock may be right while the other's is not.
func TestCase25Certificates(t *testing.T) {
	sc := score.Start(t, "25", "certificates made by one clock, judged by another")
	offs := []time.Duration{-24 * time.Hour, -time.Hour, 0, time.Hour, 24 * time.Hour}
	hosts := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	at := func(off time.Duration) func() time.Time { return func() time.Time { return time.Now().Add(off) } }
	for _, made := range offs {
		p := must[*PKI](t)(openPKI(shortDir(t), at(made)))
		must[bool](t)(p.Renew(hosts))
		for _, off := range offs {
			if err := shake(t, p, at(off)); err != nil {
				t.Errorf("made %v off, judged %v off: %v", made, off, err)
			}
		}
	}
	sc.Count(len(offs)*len(offs), "pairs of clocks")
	sc.Say("each handshake works")

	dir := shortDir(t)
	early := must[*PKI](t)(openPKI(dir, at(0)))
	early.now = at(30 * 24 * time.Hour)
	must[bool](t)(early.Renew(hosts))
	if err := shake(t, early, at(0)); err == nil {
		t.Error("a certificate of next month is good today")
	}
	now := must[*PKI](t)(OpenPKI(dir))
	if renewed := must[bool](t)(now.Renew(hosts)); !renewed {
		t.Error("certificates of next month are kept")
	}
	if err := shake(t, now, at(0)); err != nil {
		t.Error(err)
	}
}

// shake does a handshake of the authority's client and server.
func shake(t *testing.T, p *PKI, now func() time.Time) error {
	t.Helper()
	client := must[*tls.Config](t)(p.Files().Client())
	pair := must[tls.Certificate](t)(tls.LoadX509KeyPair(p.path("server.crt"), p.path("server.key")))
	server := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: client.RootCAs, Time: now}
	client.Time, client.ServerName = now, "localhost"
	a, b := net.Pipe()
	end := time.Now().Add(10 * time.Second)
	_, _ = a.SetDeadline(end), b.SetDeadline(end)
	failed := make(chan error, 1)
	go func() {
		err := tls.Server(a, server).HandshakeContext(t.Context())
		if err != nil {
			_ = a.Close()
		}
		failed <- err
	}()
	err := tls.Client(b, client).HandshakeContext(t.Context())
	if err != nil {
		_ = b.Close()
		<-failed
		return err
	}
	return <-failed
}
