package parse

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// Pack is a policy's JSON form in less space, for those that are kept by the ten thousand and seldom read. It is for this process: another
// one may have another dictionary.
func Pack(p Policy) ([]byte, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	out := bytes.NewBuffer([]byte{packed})
	w := packers.Get().(*flate.Writer)
	defer packers.Put(w)
	w.Reset(out)
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return bytes.Clone(out.Bytes()), nil // without the buffer's room
}

// Read reads a policy as it is stored: its JSON form, or what Pack made of it.
func Read(b []byte) (p Policy, err error) {
	if len(b) > 0 && b[0] == packed {
		r := unpackers.Get().(io.ReadCloser)
		defer unpackers.Put(r)
		if err := r.(flate.Resetter).Reset(bytes.NewReader(b[1:]), dictionary); err != nil {
			return p, err
		}
		if b, err = io.ReadAll(io.LimitReader(r, MaxSize+1)); err != nil {
			return p, fmt.Errorf("unpack policy: %w", err)
		}
	}
	return p, json.Unmarshal(b, &p)
}

// packed is what a packed form begins with: no JSON text does.
const packed = 0

var (
	packers = sync.Pool{New: func() any {
		w, err := flate.NewWriterDict(io.Discard, flate.DefaultCompression, dictionary)
		if err != nil {
			panic(err) // no such level
		}
		return w
	}}
	unpackers = sync.Pool{New: func() any { return flate.NewReaderDict(bytes.NewReader(nil), dictionary) }}
)

// dictionary is what most policies have in common, the most frequent last.
var dictionary = []byte(`"toEntities":["world"]"fromEntities":["all"]"audit":true"icmps":[{"fields":[{"family":"IPv4","type":"8"}]}]"ingressDeny":[{"egressDeny":[{` +
	`"fromCIDR":["10.0.0.0/8"]"toCIDR":["0.0.0.0/0"]"cidr":"10.0.0.0/8","except":["10.1.0.0/16"]"fromCIDRSet":[{"toCIDRSet":[{"matchLabels":{"any:app":"` +
	`"cluster":{"tier":"Admin","priority":10,"subject":{"namespaces":{"pods":{"namespaceSelector":{"podSelector":{"action":"Accept"` +
	`{"key":"CiliumClusterwideNetworkPolicy/","kind":"CiliumClusterwideNetworkPolicy","name":"` +
	`{"key":"CiliumNetworkPolicy/","kind":"CiliumNetworkPolicy","namespace":"default","name":"{"key":"NetworkPolicy/","kind":"NetworkPolicy","namespace":"` +
	`","labels":[{"key":"io.cilium.k8s.policy.derived-from","value":"CiliumNetworkPolicy","source":"k8s"},{"key":"io.cilium.k8s.policy.derived-from","value":"NetworkPolicy","source":"k8s"},` +
	`{"key":"io.cilium.k8s.policy.name","value":"","source":"k8s"},{"key":"io.cilium.k8s.policy.namespace","value":"","source":"k8s"},{"key":"io.cilium.k8s.policy.uid","value":"","source":"k8s"}],` +
	`"rules":[{"endpointSelector":{"matchExpressions":[{"key":"k8s:io.cilium.k8s.namespace.labels."operator":"NotIn","values":["operator":"DoesNotExist"` +
	`"egress":[{},{"toEndpoints":[{"matchExpressions":[{"key":"k8s:app","operator":"Exists"},{"ingress":[{},{"fromEndpoints":[{"matchExpressions":[{"key":"k8s:app","operator":"In","values":["` +
	`{"key":"k8s:io.kubernetes.pod.namespace","operator":"In","values":["` +
	`"]}]}],"toPorts":[{"ports":[{"port":"53","protocol":"UDP"}]}]}],"toPorts":[{"ports":[{"port":"80","protocol":"TCP"}]}]}],"enableDefaultDeny":{"ingress":true,"egress":false}}]}`)
