package filter

import (
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	flowpb "github.com/hypha-net/hypha/api/flow"
)

// application holds the tests of layer 7.
func application(b *builder) {
	f := b.f
	http := func(f *flowpb.Flow) *flowpb.HTTP { return f.GetL7().GetHttp() }
	anyOf(b, "http_status_code", f.GetHttpStatusCode(), httpStatus, http)
	anyOf(b, "http_method", f.GetHttpMethod(), httpMethod, http)
	anyOf(b, "http_path", f.GetHttpPath(), b.httpPath, http)
	anyOf(b, "http_url", f.GetHttpUrl(), b.httpURL, http)
	anyOf(b, "http_header", f.GetHttpHeader(), httpHeader, http)
	anyOf(b, "dns_query", f.GetDnsQuery(), b.dnsQuery, func(f *flowpb.Flow) *flowpb.DNS { return f.GetL7().GetDns() })
	anyOf(b, "trace_id", f.GetTraceId(), nonEmpty, func(f *flowpb.Flow) string { return f.GetTraceContext().GetParent().GetTraceId() })
}

var statusPattern = regexp.MustCompile(`^([1-5][0-9][0-9]|[1-5][0-9]?\+)$`)

func httpStatus(s string) (func(*flowpb.HTTP) bool, error) {
	if !statusPattern.MatchString(s) {
		return nil, errors.New("want an HTTP status such as 404, or a prefix such as 5+ or 40+")
	}
	prefix, isPrefix := strings.CutSuffix(s, "+")
	return func(h *flowpb.HTTP) bool {
		have := strconv.FormatUint(uint64(h.GetCode()), 10)
		return have == prefix || isPrefix && len(have) == 3 && strings.HasPrefix(have, prefix)
	}, nil
}

func httpMethod(s string) (func(*flowpb.HTTP) bool, error) {
	if s == "" {
		return nil, errors.New("want an HTTP method")
	}
	return func(h *flowpb.HTTP) bool { return strings.EqualFold(h.GetMethod(), s) }, nil
}

func (b *builder) httpPath(s string) (func(*flowpb.HTTP) bool, error) {
	re, err := b.budget.compile(s)
	if err != nil {
		return nil, err
	}
	return func(h *flowpb.HTTP) bool {
		if h == nil {
			return false
		}
		u, err := url.Parse(h.GetUrl())
		return err == nil && re.MatchString(u.Path)
	}, nil
}

func (b *builder) httpURL(s string) (func(*flowpb.HTTP) bool, error) {
	re, err := b.budget.compile(s)
	if err != nil {
		return nil, err
	}
	return func(h *flowpb.HTTP) bool { return h != nil && re.MatchString(h.GetUrl()) }, nil
}

func httpHeader(want *flowpb.HTTPHeader) (func(*flowpb.HTTP) bool, error) {
	if want.GetKey() == "" {
		return nil, errors.New("want a header's name")
	}
	return func(h *flowpb.HTTP) bool {
		return slices.ContainsFunc(h.GetHeaders(), func(have *flowpb.HTTPHeader) bool {
			return strings.EqualFold(have.GetKey(), want.GetKey()) && have.GetValue() == want.GetValue()
		})
	}, nil
}

func (b *builder) dnsQuery(s string) (func(*flowpb.DNS) bool, error) {
	re, err := b.budget.compile(s)
	if err != nil {
		return nil, err
	}
	return func(d *flowpb.DNS) bool { return d != nil && re.MatchString(d.GetQuery()) }, nil
}

func nonEmpty(want string) (func(string) bool, error) {
	if want == "" {
		return nil, errors.New("want a value")
	}
	return func(have string) bool { return have == want }, nil
}
