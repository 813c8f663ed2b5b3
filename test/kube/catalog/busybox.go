package catalog

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// applets are the names under which this machine's busybox is another program.
func applets(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, "busybox", "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("ask busybox for its names: %w", err)
	}
	return strings.Fields(string(out)), nil
}

func trim(b []byte) string { return strings.TrimSpace(string(b)) }
