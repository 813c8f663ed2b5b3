package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hypha-net/hypha/test/bench/page"
	"github.com/hypha-net/hypha/test/bench/stat"
)

// loadMost is the target of row 5 for fifty thousand services.
const loadMost = 500 * time.Millisecond

// fromNothing is the other half of row 5.
func fromNothing(ctx context.Context, o options, t *page.Targets) (string, error) {
	r, err := loads(ctx, o)
	if err != nil {
		return "", err
	}
	wall := func(s spent) float64 { return s.wall.Seconds() }
	cpu := func(s spent) float64 { return s.cpu.Seconds() }
	took := stat.MedianOf(r.written, wall)
	t.Add(fmt.Sprintf("%d services of %d backends from nothing, from the agent's table to the kernel", r.services, manyBackends), fmt.Sprintf("%.2f s", took),
		fmt.Sprintf("<= %.1f s", loadMost.Seconds()), took <= loadMost.Seconds())
	var b strings.Builder
	fmt.Fprintf(&b, "%d services of %d backends, the medians of %d rounds; what goes by way of an agent once.\n\n", r.services, manyBackends, len(r.written))
	b.WriteString("| | s | CPU s |\n| --- | ---: | ---: |\n")
	fmt.Fprintf(&b, "| services to rows: judged, decided | %.2f | %.2f |\n", stat.MedianOf(r.decided, wall), stat.MedianOf(r.decided, cpu))
	fmt.Fprintf(&b, "| rows to the kernel: the table, its reconciler, the maps | %.2f | %.2f |\n", took, stat.MedianOf(r.written, cpu))
	fmt.Fprintf(&b, "| a services file to the kernel: read, stored by 16 writers, followed, decided, written | %.2f | |\n", r.file.Seconds())
	fmt.Fprintf(&b, "| an agent starts, all is in its store and nothing in its kernel and files | %.2f | %.2f |\n", r.start.wall.Seconds(), r.start.cpu.Seconds())
	return b.String(), nil
}
