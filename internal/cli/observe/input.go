package observe

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"time"

	flowpb "github.com/hypha-net/hypha/api/flow"
	observerpb "github.com/hypha-net/hypha/api/observer"
	"github.com/hypha-net/hypha/internal/observe/filter"
)

func newFlow() *flowpb.Flow { return &flowpb.Flow{} }

// longestLine of an input file, in bytes.
const longestLine = 4 << 20

// readInput does with a file what a server does with its ring.
func readInput(stdin io.Reader, name string, req *observerpb.GetFlowsRequest, emit func(*observerpb.GetFlowsResponse) error) error {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("read flows: %w", err)
		}
		defer f.Close()
		in = f
	}
	want, err := filter.Compile(req.GetWhitelist(), req.GetBlacklist())
	if err != nil {
		return &UsageError{err}
	}
	var kept []*observerpb.GetFlowsResponse // with --last
	var n uint64
	sc := bufio.NewScanner(in)
	sc.Buffer(nil, longestLine)
	for line := 1; sc.Scan(); line++ {
		raw := bytes.TrimSpace(sc.Bytes())
		if len(raw) == 0 {
			continue
		}
		r, err := decodeJSON(raw)
		if err != nil {
			return fmt.Errorf("read flows: %s:%d: %w", name, line, err)
		}
		f := r.GetFlow()
		if f != nil && (!want.Match(f) || !within(req, r.GetTime().AsTime())) {
			continue
		}
		if req.GetNumber() == 0 || req.GetFirst() || req.GetFollow() {
			if err := emit(r); err != nil {
				return err
			}
			if f != nil {
				n++
			}
			if req.GetFirst() && n >= req.GetNumber() {
				return nil
			}
			continue
		}
		if kept = append(kept, r); uint64(len(kept)) > req.GetNumber() {
			kept = kept[1:]
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("read flows: %s: %w", name, err)
	}
	for _, r := range kept {
		if err := emit(r); err != nil {
			return err
		}
	}
	return nil
}

func within(req *observerpb.GetFlowsRequest, t time.Time) bool {
	return (req.GetSince() == nil || !t.Before(req.GetSince().AsTime())) && (req.GetUntil() == nil || !t.After(req.GetUntil().AsTime()))
}
