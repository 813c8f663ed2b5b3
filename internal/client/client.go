// Package client reaches the agent through its unix sockets, for the CLI and the CNI plugin. It finds the socket, speaks
// the Connect protocol over HTTP/1.1 (streams included), bounds every unary call in time and says in plain words what to do
// when the agent does not answer. The CNI plugin starts once per workload, so nothing heavy may be imported here.
package client

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"github.com/hypha-net/hypha/api/agent/v1/agentv1connect"
	"github.com/hypha-net/hypha/internal/paths"
)

// CallTimeout bounds a unary call whose context has no deadline of its own.
const CallTimeout = 30 * time.Second

const (
	dialTimeout = 2 * time.Second
	maxMessage  = 64 << 20 // bytes of one answer: lists on a full node
)

// Reader is a client of the Reader service at a unix socket. It connects at the first call.
// Errors are *Error where the agent could not be asked, else *connect.Error with what the agent said.
func Reader(socket string) agentv1connect.ReaderClient {
	return agentv1connect.NewReaderClient(httpClient(socket), baseURL, options(socket)...)
}

// Admin is a client of the Admin service at a unix socket. It connects at the first call; errors are as with Reader.
func Admin(socket string) agentv1connect.AdminClient {
	return agentv1connect.NewAdminClient(httpClient(socket), baseURL, options(socket)...)
}

const baseURL = "http://agent" // the host is not used

func options(socket string) []connect.ClientOption {
	return []connect.ClientOption{
		connect.WithInterceptors(&interceptor{socket: socket}),
		connect.WithReadMaxBytes(maxMessage),
		connect.WithAcceptCompression("gzip", nil, nil), // a unix socket is faster than gzip
	}
}

func httpClient(socket string) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dial(ctx, socket)
			},
			DisableCompression: true,
			IdleConnTimeout:    time.Minute,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// dial connects to a socket, or to its refuge when nobody listens there. The error is the socket's own.
func dial(ctx context.Context, socket string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialTimeout}
	c, err := dialer.DialContext(ctx, "unix", socket)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		if r, rerr := dialer.DialContext(ctx, "unix", paths.Refuge(socket)); rerr == nil {
			return r, nil
		}
	}
	return c, err
}

// interceptor bounds unary calls in time and turns failures to reach the agent into *Error.
type interceptor struct{ socket string }

func (i *interceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if _, ok := ctx.Deadline(); !ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, CallTimeout)
			defer cancel()
		}
		resp, err := next(ctx, req)
		if err != nil {
			return nil, explain(ctx, i.socket, req.Spec().Procedure, err)
		}
		return resp, nil
	}
}

func (i *interceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return &stream{StreamingClientConn: next(ctx, spec), ctx: ctx, socket: i.socket}
	}
}

func (i *interceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

type stream struct {
	connect.StreamingClientConn
	ctx    context.Context
	socket string
}

func (s *stream) Send(msg any) error {
	return explain(s.ctx, s.socket, s.Spec().Procedure, s.StreamingClientConn.Send(msg))
}
func (s *stream) Receive(msg any) error {
	return explain(s.ctx, s.socket, s.Spec().Procedure, s.StreamingClientConn.Receive(msg))
}
func (s *stream) CloseRequest() error {
	return explain(s.ctx, s.socket, s.Spec().Procedure, s.StreamingClientConn.CloseRequest())
}
