package sysdump

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// hypha is the command line, beside this program or else where the shell finds it.
func hypha() (string, error) {
	if own, err := os.Executable(); err == nil {
		path := filepath.Join(filepath.Dir(own), "hypha")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath("hypha")
	if err != nil {
		return "", fmt.Errorf("find the command line that asks this node's agent: %w", err)
	}
	return path, nil
}

// onNode asks the agent of this machine; variables say which.
func onNode(program string, variables []string) asker {
	return func(ctx context.Context, args []string, out io.Writer) error {
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Env = append(os.Environ(), variables...)
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = out, &said
		return explain(cmd.Run(), said.String())
	}
}
