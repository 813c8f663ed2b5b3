package kvstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"time"
)

// diagnose says why the endpoints do not answer, where a connection tells: the client library hides that behind its
// deadline. nil when they can be reached, or nobody asks over TCP.
func diagnose(ctx context.Context, endpoints []string, conf *tls.Config) error {
	var causes error
	for _, e := range endpoints {
		u, err := url.Parse(e)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" {
			continue
		}
		if err := knock(ctx, u, conf); err != nil {
			causes = errors.Join(causes, fmt.Errorf("%s: %w", e, err))
		}
	}
	return causes
}

// knock connects as the client does, up to where the server has judged the client's certificate.
func knock(ctx context.Context, u *url.URL, conf *tls.Config) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if u.Scheme != "https" {
		return nil
	}
	if conf == nil {
		conf = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	conf = conf.Clone()
	if conf.ServerName == "" {
		conf.ServerName = u.Hostname()
	}
	conf.NextProtos = []string{"h2"}
	t := tls.Client(c, conf)
	if err := t.HandshakeContext(ctx); err != nil {
		return err
	}
	// With TLS 1.3 a server refuses a certificate after the client's part is over.
	_ = t.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if _, err := t.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}
