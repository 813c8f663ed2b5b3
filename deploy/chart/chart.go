// Package chart holds the Helm chart that installs Hypha on Kubernetes, as files for `helm` and embedded for `hypha install`.
package chart

import "embed"

// Files are the chart's, Chart.yaml at the top.
//
//go:embed Chart.yaml values.yaml all:files all:templates
var Files embed.FS
