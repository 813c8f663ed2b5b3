package sysdump

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"

	"github.com/hypha-net/hypha/internal/cluster/podexec"
)

// agentContainer is where the agent's commands are run.
const agentContainer = "cilium-agent"

// pods lists those of Hypha's namespace with labels, on the nodes that are asked for.
func pods(ctx context.Context, api kubernetes.Interface, o *options, selector string) ([]corev1.Pod, error) {
	list, err := api.CoreV1().Pods(o.namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("list pods %s: %w", selector, err)
	}
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return len(o.nodes) > 0 && !slices.Contains(o.nodes, p.Spec.NodeName) }), nil
}

// logs makes the tasks of reading the logs of a pod: of each container, and of the one that was there before it started anew.
func logs(api kubernetes.Interface, a *archive, p *corev1.Pod, o *options) (out []task) {
	one := func(container string, previous bool) task {
		file, what := container+".log", container
		if previous {
			file, what = container+"-previous.log", container+" before its restart"
		}
		return task{fmt.Sprintf("log of %s of pod %s", what, p.Name), func(ctx context.Context) error {
			opts := &corev1.PodLogOptions{Container: container, Previous: previous, Timestamps: true, LimitBytes: &o.limit}
			if o.since > 0 {
				seconds := int64(o.since / time.Second)
				opts.SinceSeconds = &seconds
			}
			in, err := api.CoreV1().Pods(p.Namespace).GetLogs(p.Name, opts).Stream(ctx)
			if err != nil {
				return err
			}
			defer in.Close() //nolint:errcheck // read only
			return a.write(func(w io.Writer) error { _, err := io.Copy(w, in); return err }, "logs", p.Name, file)
		}}
	}
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if s.State.Waiting == nil || s.RestartCount > 0 {
			out = append(out, one(s.Name, false))
		}
		if s.RestartCount > 0 {
			out = append(out, one(s.Name, true))
		}
	}
	return out
}

// inPod asks an agent by running the command line in its pod.
func inPod(conf *rest.Config, api kubernetes.Interface, p *corev1.Pod) asker {
	return func(ctx context.Context, args []string, out io.Writer) error {
		var said bytes.Buffer
		err := podexec.Run(ctx, conf, api, podexec.Command{Namespace: p.Namespace, Pod: p.Name, Container: agentContainer, Args: append([]string{"cilium-dbg"}, args...)}, out, &said)
		return explain(err, said.String())
	}
}

// explain adds what a command said before it failed.
func explain(err error, said string) error {
	if said = strings.TrimSpace(said); err != nil && said != "" {
		return fmt.Errorf("%w: %s", err, said)
	}
	return err
}

// profiles are what an agent tells of itself to Go's tools, where it does (option pprof).
var profiles = []struct{ file, path string }{
	{"heap.pprof", "heap"}, {"goroutine.txt", "goroutine?debug=2"}, {"allocs.pprof", "allocs"}, {"cpu.pprof", "profile?seconds=5"},
}

// profile makes the task of reading an agent's profiles, by way of its pod's loopback.
func profile(conf *rest.Config, api kubernetes.Interface, a *archive, p *corev1.Pod, port int) task {
	return task{"profiles of " + p.Spec.NodeName, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		transport, upgrader, err := spdy.RoundTripperFor(conf)
		if err != nil {
			return err
		}
		url := api.CoreV1().RESTClient().Post().Resource("pods").Namespace(p.Namespace).Name(p.Name).SubResource("portforward").URL()
		stop, ready := make(chan struct{}), make(chan struct{})
		var said bytes.Buffer
		fw, err := portforward.NewOnAddresses(spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, url),
			[]string{"127.0.0.1"}, []string{fmt.Sprintf("0:%d", port)}, stop, ready, io.Discard, &said)
		if err != nil {
			return err
		}
		done := make(chan error, 1)
		go func() { done <- fw.ForwardPorts() }()
		defer close(stop)
		select {
		case <-ready:
		case err := <-done:
			return explain(err, said.String())
		case <-ctx.Done():
			return ctx.Err()
		}
		ports, err := fw.GetPorts()
		if err != nil || len(ports) != 1 {
			return fmt.Errorf("forward a port: %w", err)
		}
		return fetch(ctx, a, fmt.Sprintf("http://127.0.0.1:%d", ports[0].Local), p.Spec.NodeName)
	}}
}

// fetch reads profiles.
func fetch(ctx context.Context, a *archive, base, node string) (errs error) {
	for _, pr := range profiles {
		errs = errors.Join(errs, a.write(func(w io.Writer) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/debug/pprof/"+pr.path, nil)
			if err != nil {
				return err
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close() //nolint:errcheck // read only
			if resp.StatusCode != http.StatusOK {
				return fmt.Errorf("%s: %s", pr.path, resp.Status)
			}
			_, err = io.Copy(w, resp.Body)
			return err
		}, "agents", node, pr.file))
	}
	return errs
}
