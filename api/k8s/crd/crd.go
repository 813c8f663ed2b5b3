// Package crd holds the definitions of the resources in api/k8s for an API server, as controller-gen makes them.
package crd

import "embed"

// Files are the definitions, one each.
//
//go:embed *.yaml
var Files embed.FS
