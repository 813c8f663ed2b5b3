package option

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/hypha-net/hypha/internal/control/slicing"
)

// Bounds of what ces-rate-limits may ask for.
const (
	maxSliceLimit = 50
	maxSliceBurst = 100
)

// SliceRates are how fast endpoint slices are written, a JSON list: [{"nodes": 0, "limit": 10, "burst": 20}, ...]. More than 50 a second
// and 100 at once there are not.
func (o *Options) SliceRates() (slicing.Rates, error) {
	d := json.NewDecoder(bytes.NewReader([]byte(o.SliceLimits)))
	d.DisallowUnknownFields()
	var out slicing.Rates
	if err := d.Decode(&out); err != nil {
		return nil, fmt.Errorf("option ces-rate-limits: %w", err)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("option ces-rate-limits: %s names no limit", o.SliceLimits)
	}
	for i, r := range out {
		if r.Nodes < 0 || r.Limit <= 0 || r.Burst <= 0 {
			return nil, fmt.Errorf("option ces-rate-limits: %+v: want nodes of 0 or more, limit and burst of more than 0", r)
		}
		out[i].Limit, out[i].Burst = min(r.Limit, maxSliceLimit), min(r.Burst, maxSliceBurst)
	}
	return out, nil
}
