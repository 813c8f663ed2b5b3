package workload

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// maxBody bounds what Get reads of an answer.
const maxBody = 1 << 20

// Client asks workloads. The zero value dials from where it is.
type Client struct {
	// Dial connects, for example from inside a network namespace.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

func (c Client) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if c.Dial != nil {
		return c.Dial(ctx, network, addr)
	}
	return new(net.Dialer).DialContext(ctx, network, addr)
}

// Get fetches a URL on a connection of its own and returns the body (its first MiB); "http://" may be left out. A
// status other than 2xx is an error.
func (c Client) Get(ctx context.Context, url string) (string, error) {
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", fmt.Errorf("get: %w", err)
	}
	// A transport lets a dial go on for the sake of other requests; there are none.
	dial := func(_ context.Context, network, addr string) (net.Conn, error) { return c.dial(ctx, network, addr) }
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}}
	resp, err := client.Do(req)
	if err != nil {
		return "", err // names method and URL
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return "", fmt.Errorf("get %s: %w", url, err)
	}
	if resp.StatusCode/100 != 2 {
		return string(body), fmt.Errorf("get %s: %s", url, resp.Status)
	}
	return string(body), nil
}

// Echo sends 16 random bytes to an echo service ("tcp" or "udp", host:port) and returns the time until they came back.
// Lost datagrams are not sent again: ctx must have an end.
func (c Client) Echo(ctx context.Context, network, addr string) (time.Duration, error) {
	if _, ok := ctx.Deadline(); !ok {
		return 0, errors.New("echo: the context has no deadline")
	}
	begin := time.Now()
	conn, err := c.dial(ctx, network, addr)
	if err != nil {
		return 0, err // names network and address
	}
	defer func() { _ = conn.Close() }()
	if end, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(end)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var sent, got [16]byte
	_, _ = rand.Read(sent[:]) // never fails
	if _, err := conn.Write(sent[:]); err != nil {
		return 0, fmt.Errorf("echo: %w", err)
	}
	if _, err := io.ReadFull(conn, got[:]); err != nil {
		return 0, fmt.Errorf("echo: %w", err)
	}
	if !bytes.Equal(sent[:], got[:]) {
		return 0, fmt.Errorf("echo %s: other bytes came back", addr)
	}
	return time.Since(begin), nil
}
