// Package api holds the protobuf definitions of Hypha's interfaces and the code generated from them. The packages
// flow, observer, peer and relay have the names and numbers of the published flow API; agent/v1 is our own.
//
// cilium/v2 and k8s hold the resources of Kubernetes, and k8s/crd their CRDs.
//
// Needs protoc 3.21 or later (Debian: protobuf-compiler).
package api

//go:generate ./gen.sh
