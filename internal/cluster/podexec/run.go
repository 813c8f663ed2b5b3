// Package podexec runs commands in pods, as kubectl exec does.
package podexec

import (
	"context"
	"io"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
)

// Command is one, in a container of a pod; Container "" is the only one.
type Command struct {
	Namespace, Pod, Container string
	Args                      []string
}

// Run runs a command until it ends. It speaks by WebSocket, and with API servers that do not, by SPDY. A command that ends with another
// code than 0 is an exec.CodeExitError (k8s.io/client-go/util/exec).
func Run(ctx context.Context, conf *rest.Config, api kubernetes.Interface, c Command, out, errOut io.Writer) error {
	url := api.CoreV1().RESTClient().Post().Resource("pods").Namespace(c.Namespace).Name(c.Pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: c.Container, Command: c.Args, Stdout: true, Stderr: true}, scheme.ParameterCodec).URL()
	spdy, err := remotecommand.NewSPDYExecutor(conf, http.MethodPost, url)
	if err != nil {
		return err
	}
	socket, err := remotecommand.NewWebSocketExecutor(conf, http.MethodGet, url.String())
	if err != nil {
		return err
	}
	ex, err := remotecommand.NewFallbackExecutor(socket, spdy, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	if err != nil {
		return err
	}
	return ex.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: out, Stderr: errOut})
}
