#!/bin/sh
# Generates the Go code of every .proto file here, beside it, with the plugins that go.mod names.
set -eu
cd "$(dirname "$0")"
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
go build -o "$bin/" google.golang.org/protobuf/cmd/protoc-gen-go connectrpc.com/connect/cmd/protoc-gen-connect-go
PATH="$bin:$PATH" protoc -I . \
	--go_out=paths=source_relative:. --connect-go_out=paths=source_relative:. \
	agent/v1/agent.proto flow/flow.proto observer/observer.proto peer/peer.proto relay/relay.proto
