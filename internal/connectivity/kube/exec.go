package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"k8s.io/client-go/util/exec"

	"github.com/hypha-net/hypha/internal/cluster/podexec"
	"github.com/hypha-net/hypha/internal/connectivity"
)

// exec runs a command in a container ("" for the only one) and returns what it printed; a code other than 0 is a
// *connectivity.ExitError.
func (p *Place) exec(ctx context.Context, namespace, name, container string, argv []string) ([]byte, error) {
	var out, errOut bytes.Buffer
	err := podexec.Run(ctx, p.rest, p.api, podexec.Command{Namespace: namespace, Pod: name, Container: container, Args: argv}, &out, &errOut)
	var exit exec.CodeExitError
	switch {
	case err == nil:
		return out.Bytes(), nil
	case errors.As(err, &exit):
		return out.Bytes(), &connectivity.ExitError{Code: exit.Code, Stderr: strings.TrimSpace(errOut.String())}
	}
	return nil, fmt.Errorf("run a command in pod %s/%s: %w", namespace, name, err)
}
