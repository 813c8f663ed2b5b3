package app

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/monitor"
)

// Every reason for which the datapath drops has a name in the metrics, and a row in docs/drops.md under that name. There is no row
// without a reason.
func TestDropReasons(t *testing.T) {
	header, err := os.ReadFile("../../bpf/lib/reason.h")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/drops.md")
	if err != nil {
		t.Fatal(err)
	}
	reasons := regexp.MustCompile(`(?m)^\tDROP_\w+ = (\d+),`).FindAllStringSubmatch(string(header), -1)
	if len(reasons) < 30 || len(reasons) != strings.Count(string(header), "DROP_") {
		t.Fatalf("%d reasons read", len(reasons))
	}
	told := map[string]bool{}
	for _, r := range reasons {
		n, err := strconv.ParseUint(r[1], 10, 8)
		if err != nil {
			t.Fatal(err)
		}
		name := monitor.DropReason(uint8(n))
		if name == r[1] || name == "" || name == "unknown" || told[name] {
			t.Errorf("reason %s has no name of its own: %q", r[1], name)
		}
		told[name] = true
		for dir, word := range []string{"UNKNOWN", "INGRESS", "EGRESS"} {
			seen := false
			packets([]maps.Metric{{Reason: uint8(n), Direction: uint8(dir), Packets: 7, Bytes: 70}}, func(d *prometheus.Desc, v uint64, labels ...string) {
				seen = seen || d == dropCount && v == 7 && labels[0] == name && labels[1] == word
			})
			if !seen {
				t.Errorf("a drop for reason %s, %s, is in no metric", r[1], word)
			}
		}
		if !strings.Contains(string(page), fmt.Sprintf("| %s | %s |", r[1], name)) {
			t.Errorf("docs/drops.md has no row | %s | %s |", r[1], name)
		}
	}
	if rows := regexp.MustCompile(`(?m)^\| \d+ \|`).FindAll(page, -1); len(rows) != len(reasons) {
		t.Errorf("docs/drops.md has %d rows for %d reasons", len(rows), len(reasons))
	}
	for n := range shortages {
		if !strings.Contains(string(page), fmt.Sprintf("| %d |", n)) {
			t.Errorf("status explains reason %d, which there is not", n)
		}
	}
}
