package observe

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	observerpb "github.com/hypha-net/hypha/api/observer"
)

const defaultLast = 20

// selection is which part of what was seen is wanted.
type selection struct {
	all    bool
	first  count
	last   count
	follow bool
	since  moment
	until  moment

	number uint64 // computed by check; 0 = no limit
}

func (s *selection) flags(f *pflag.FlagSet) {
	f.BoolVar(&s.all, "all", false, "everything that is still there")
	f.Var(&s.first, "first", "the oldest N")
	f.Var(&s.last, "last", "the newest N (default 20, unless a time or --follow is given)")
	f.BoolVarP(&s.follow, "follow", "f", false, "go on with what comes")
	f.Var(&s.since, "since", "not before this time: a duration back from now such as 5m, or RFC 3339")
	f.Var(&s.until, "until", "not after this time")
}

// check says whether the flags go together, and works out the number.
func (s *selection) check(c *cobra.Command) error {
	set := func(name string) bool { return c.Flags().Changed(name) }
	switch {
	case set("first") && set("last"), s.all && (set("first") || set("last")):
		return usagef("--all, --first and --last exclude each other")
	case set("first") && s.follow:
		return usagef("--first and --follow exclude each other: the oldest do not become more")
	case s.since.set && s.until.set && s.until.Time.Before(s.since.Time):
		return usagef("--until is before --since")
	case set("first"):
		s.number = uint64(s.first)
	case set("last"):
		s.number = uint64(s.last)
	case !s.all && !s.follow && !s.since.set && !s.until.set:
		s.number = defaultLast
	}
	return nil
}

// none says whether the user asked for no event at all (`--last 0`): to the server that would mean all.
func (s *selection) none(c *cobra.Command) bool {
	return s.number == 0 && !s.follow && (c.Flags().Changed("last") || c.Flags().Changed("first"))
}

// from is the time to begin at: with --all and --follow that is the beginning of time, else the server would send
// only what is new.
func (s *selection) from() *timestamppb.Timestamp {
	if !s.since.set && s.all && s.follow {
		return &timestamppb.Timestamp{}
	}
	return s.since.proto()
}

// count is a number of events.
type count uint64

func (n *count) Set(s string) error {
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return errors.New("want a number of events, such as 50")
	}
	*n = count(v)
	return nil
}

func (n *count) Type() string { return "N" }

func (n *count) String() string {
	if *n == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(*n), 10)
}

// moment is a point in time, given as such or as a duration back from now.
type moment struct {
	time.Time
	set bool
}

var layouts = []string{time.RFC3339Nano, time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02"}

func (m *moment) Set(s string) error {
	if s == "now" {
		m.Time, m.set = time.Now(), true
		return nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		if d < 0 {
			d = -d
		}
		m.Time, m.set = time.Now().Add(-d), true
		return nil
	}
	for _, l := range layouts {
		if t, err := time.ParseInLocation(l, s, time.Local); err == nil {
			m.Time, m.set = t, true
			return nil
		}
	}
	return errors.New("want a duration such as 90s, 5m, 2h, or a time such as 2006-01-02T15:04:05Z")
}

func (m *moment) Type() string { return "time" }

func (m *moment) String() string {
	if !m.set {
		return ""
	}
	return m.Format(time.RFC3339Nano)
}

func (m *moment) proto() *timestamppb.Timestamp {
	if !m.set {
		return nil
	}
	return timestamppb.New(m.Time)
}

// flowRequest is the request for flows.
func flowRequest(s *selection, f *filters, mask []string) (*observerpb.GetFlowsRequest, error) {
	allow, deny, err := f.build()
	if err != nil {
		return nil, err
	}
	req := &observerpb.GetFlowsRequest{Number: s.number, First: s.first > 0, Follow: s.follow, Since: s.from(), Until: s.until.proto(),
		Whitelist: allow, Blacklist: deny}
	for _, p := range mask {
		if p = strings.TrimSpace(p); p != "" {
			if req.FieldMask == nil {
				req.FieldMask = &fieldmaskpb.FieldMask{}
			}
			req.FieldMask.Paths = append(req.FieldMask.Paths, p)
		}
	}
	return req, nil
}
