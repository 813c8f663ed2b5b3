package k8s

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	ciliumv2alpha1 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2alpha1"
	"github.com/hypha-net/hypha/internal/source/document"
	"github.com/hypha-net/hypha/internal/source/state"
)

// clients are one for each API group, over one connection.
type clients struct {
	core, discovery, networking rest.Interface
	cilium, ciliumAlpha         rest.Interface
	documents, clusterPolicy    rest.Interface // policies, unread

	http *http.Client
}

// close lets go of connections that nobody uses.
func (c *clients) close() { c.http.CloseIdleConnections() }

// newClients makes them without asking anybody.
func newClients(conf *rest.Config) (*clients, error) {
	http, err := rest.HTTPClientFor(conf)
	if err != nil {
		return nil, err
	}
	typed, unread := runtime.NewScheme(), runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, discoveryv1.AddToScheme, networkingv1.AddToScheme, ciliumv2.AddToScheme, ciliumv2alpha1.AddToScheme} {
		if err := add(typed); err != nil {
			return nil, err
		}
	}
	document.AddToScheme(unread)
	c := &clients{http: http}
	for _, x := range []struct {
		into   *rest.Interface
		gv     schema.GroupVersion
		scheme *runtime.Scheme
		own    bool // the API server's own: it speaks protobuf about these
	}{
		{&c.core, corev1.SchemeGroupVersion, typed, true},
		{&c.discovery, discoveryv1.SchemeGroupVersion, typed, true},
		{&c.networking, networkingv1.SchemeGroupVersion, typed, true},
		{&c.cilium, ciliumv2.GroupVersion, typed, false},
		{&c.ciliumAlpha, ciliumv2alpha1.GroupVersion, typed, false},
		{&c.documents, ciliumv2.GroupVersion, unread, false},
		{&c.clusterPolicy, document.ClusterPolicyVersion, unread, false},
	} {
		if *x.into, err = newClient(conf, http, x.gv, x.scheme, x.own); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func newClient(conf *rest.Config, http *http.Client, gv schema.GroupVersion, scheme *runtime.Scheme, own bool) (rest.Interface, error) {
	conf = rest.CopyConfig(conf)
	conf.GroupVersion, conf.APIPath = &gv, "/apis"
	if gv.Group == "" {
		conf.APIPath = "/api"
	}
	conf.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	conf.ContentType = runtime.ContentTypeJSON
	if own {
		conf.ContentType = runtime.ContentTypeProtobuf
		conf.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	}
	return rest.RESTClientForConfigAndClient(conf, http)
}

// get reads one object.
func get[T runtime.Object](ctx context.Context, c rest.Interface, resource, namespace, name string, into T) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return c.Get().NamespaceIfScoped(namespace, namespace != "").Resource(resource).Name(name).Do(ctx).Into(into)
}

// list reads objects, as many as the options say.
func list[T runtime.Object](ctx context.Context, c rest.Interface, resource string, o metav1.ListOptions, into T) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return c.Get().Resource(resource).VersionedParams(&o, metav1.ParameterCodec).Do(ctx).Into(into)
}

// wrap names what failed, and makes errors that mean "no answer" state.ErrUnreachable.
func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	if unreachable(err) {
		return fmt.Errorf("%s: %w (%w)", doing, state.ErrUnreachable, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func unreachable(err error) bool {
	var network net.Error
	return errors.Is(err, state.ErrUnreachable) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &network) ||
		apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) || apierrors.IsTooManyRequests(err) ||
		apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err)
}

// preconditions delete an object only if it is still the one that was seen.
func preconditions(uid, version string) *metav1.DeleteOptions {
	o := metav1.NewPreconditionDeleteOptions(uid)
	o.Preconditions.ResourceVersion = &version
	return o
}
