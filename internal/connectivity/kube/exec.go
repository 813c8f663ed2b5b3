package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"

	"github.com/hypha-net/hypha/internal/connectivity"
)

// exec runs a command in a container ("" for the only one) and returns what it printed; a code other than 0 is a
// *connectivity.ExitError.
func (p *Place) exec(ctx context.Context, namespace, name, container string, argv []string) ([]byte, error) {
	req := p.api.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: container, Command: argv, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	spdy, err := remotecommand.NewSPDYExecutor(p.rest, "POST", req.URL())
	if err != nil {
		return nil, fmt.Errorf("run a command in pod %s/%s: %w", namespace, name, err)
	}
	socket, err := remotecommand.NewWebSocketExecutor(p.rest, "GET", req.URL().String())
	if err != nil {
		return nil, fmt.Errorf("run a command in pod %s/%s: %w", namespace, name, err)
	}
	ex, err := remotecommand.NewFallbackExecutor(socket, spdy, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	if err != nil {
		return nil, fmt.Errorf("run a command in pod %s/%s: %w", namespace, name, err)
	}
	var out, errOut bytes.Buffer
	err = ex.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &errOut})
	var exit exec.CodeExitError
	switch {
	case err == nil:
		return out.Bytes(), nil
	case errors.As(err, &exit):
		return out.Bytes(), &connectivity.ExitError{Code: exit.Code, Stderr: strings.TrimSpace(errOut.String())}
	}
	return nil, fmt.Errorf("run a command in pod %s/%s: %w", namespace, name, err)
}
