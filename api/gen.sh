#!/bin/sh
# Generates the Go code of every .proto file here, beside it, with the plugins that go.mod names, and the CRDs.
set -eu
cd "$(dirname "$0")"
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
go build -o "$bin/" google.golang.org/protobuf/cmd/protoc-gen-go connectrpc.com/connect/cmd/protoc-gen-connect-go
PATH="$bin:$PATH" protoc -I . \
	--go_out=paths=source_relative:. --connect-go_out=paths=source_relative:. \
	agent/v1/agent.proto flow/flow.proto observer/observer.proto peer/peer.proto relay/relay.proto

# Copies of the resources, and their CRDs.
go tool controller-gen object paths=./cilium/v2 paths=./k8s/...
go tool controller-gen crd paths=./k8s/... output:crd:dir=k8s/crd
