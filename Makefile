# Hypha. `make help` lists the targets.
SHELL   := /bin/bash
GO      ?= go
BIN     := bin
CMDS    ?= ./cmd/...
VERSION ?= $(shell git describe --tags --always --abbrev=12 --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X github.com/hypha-net/hypha/internal/version.Version=$(VERSION)
export CGO_ENABLED := 0

.PHONY: help demo test test-unit test-kernels lint generate check-generated bench bench-scale bench-services build sbom vuln soak fuzz clean \
        kube-up kube-down kube-images images conformance

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# What a person's own settings of Go say (go env -w) must not change the bytes.
build: export GOFLAGS := -trimpath -buildvcs=true
build: export GOAMD64 := v1
build: export GOARM64 := v8.0
build: ## build the binaries into bin/; the same commit and Go version make the same bytes everywhere
	$(GO) build -ldflags '$(LDFLAGS)' -o $(BIN)/ $(CMDS)
	@ln -sf hypha $(BIN)/cilium && ln -sf hypha $(BIN)/hubble

# Neither serial number nor time: the same binary has the same bill.
sbom: build tools-sbom ## a bill of materials (CycloneDX) beside each binary, made from what the binary itself records
	@for b in $(notdir $(wildcard cmd/*)); do \
	  $(BIN)/cyclonedx-gomod bin -json -std -noserial -notimestamp -version '$(VERSION)' -output $(BIN)/$$b.cdx.json $(BIN)/$$b || exit 1; done

vuln: tools-vuln ## known vulnerabilities that our code reaches; asks vuln.go.dev, or the mirror that GOVULNDB names
	$(BIN)/govulncheck ./...

demo: build ## two nodes and their pods on this machine, policed and observed; root
	$(BIN)/hypha demo up

test: tools-test ## install what the tests need and run them all; as root everything, else what needs no root
	$(GO) build -trimpath -o $(BIN)/ ./cmd/...
	$(GO) vet ./...
	$(GO) test -timeout 40m ./...
	CGO_ENABLED=1 $(GO) test -race -short -timeout 10m $(CONCURRENT)

test-unit: ## the tests that need neither root nor packages
	$(GO) test -short ./...

# Packages whose own code runs in several goroutines: their tests run under the race detector in every `make test`.
CONCURRENT := ./internal/table ./internal/endpoint ./internal/monitor ./internal/observe/... ./internal/app ./internal/client \
              ./internal/control/ipam ./internal/source/kvstore ./internal/source/k8s ./internal/workload \
              ./internal/datapath/device ./internal/datapath/event ./internal/datapath/ipcache ./internal/datapath/maps

race: ## all tests under the race detector, which takes long (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -short -timeout 30m ./internal/...

lint: tools-lint ## golangci-lint with the layer rules, clang-format, and that generated files are current
	$(BIN)/golangci-lint run --allow-parallel-runners ./...
	clang-format-19 --dry-run -Werror $$(git ls-files 'bpf/*.c' 'bpf/*.h')

generate: tools-generate ## regenerate BPF objects (clang 19) and protobuf code
	$(GO) generate ./api ./bpf/...

check-generated: generate ## fail when generated files differ from what is committed
	@git diff --exit-code --stat -- api bpf || { echo 'generated files are not current: run "make generate" and commit'; exit 1; }

bench: build tools-bench ## compare with plain kernel paths and kube-proxy's shapes; writes docs/performance.md
	$(GO) run ./test/bench

bench-scale: build ## policy, identities, footprint and a large cluster (rows 8, 9, 14); writes docs/performance.md
	$(GO) run ./test/bench/scale

bench-services: build tools-bench ## connecting to one of many services, services that come, the program, XDP (rows 4 to 7); writes docs/performance.md
	$(GO) run ./test/bench/services

soak: build tools-test tools-sbom ## the reliability cases in full sizes; writes docs/reliability.md
	rm -f $(BIN)/score.jsonl
	HYPHA_SOAK=1 HYPHA_SCORE=$(CURDIR)/$(BIN)/score.jsonl $(GO) test -p 1 -count 1 -timeout 120m -run '^Test(Case|CVE|GHSA|Calico)' ./...; \
	failed=$$?; $(GO) run ./test/scoreboard $(BIN)/score.jsonl docs/reliability.md && exit $$failed

test-kernels: tools-kernels ## the datapath on Linux 5.10, 6.1, 6.12, 7.2 (QEMU) and this one; root; writes docs/kernels.md
	$(GO) run ./test/kernel -write docs/kernels.md

kube-up: kube-images ## a real Kubernetes cluster on this machine, without a CNI plugin (KUBE="--nodes 3 --dual-stack"); root
	$(GO) run ./test/kube up $(KUBE)

kube-down: ## remove that cluster without a trace
	$(GO) run ./test/kube down $(KUBE)

kube-images: build tools-kube ## all images that tests on Kubernetes need, in bin/images/
	$(GO) run ./test/kube images --version '$(VERSION)'

conformance: kube-images ## Kubernetes' own tests of the network on a cluster with Hypha; writes docs/conformance.md (CONFORMANCE="--group services"); root
	$(GO) run ./test/kube images agnhost-policy dns-client nginx
	$(GO) run ./test/conformance --write docs/conformance.md $(CONFORMANCE)

images: build ## container images of the project, in bin/images/; the same commit and Go version make the same bytes
	$(GO) run ./test/kube images --version '$(VERSION)' hypha-agent hypha-operator

fuzz: ## every fuzz target for FUZZTIME (default 30s)
	./tools/fuzz.sh $(or $(FUZZTIME),30s)

clean: ## remove what was built
	rm -rf $(BIN)

.PHONY: tools-test tools-kernels tools-lint tools-generate tools-bench tools-sbom tools-vuln tools-kube race
# apt-get only when something is missing, so that a second run needs no network. Pairs of what must be there (a command, or a
# file by its full path) and the package that brings it.
define need
	@missing=""; for c in $(1); do f=$${c%%:*}; [ -e "$$f" ] || command -v $$f >/dev/null || missing="$$missing $${c##*:}"; done; \
	if [ -n "$$missing" ]; then [ "$$(id -u)" = 0 ] || { echo "please install:$$missing"; exit 1; }; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi
endef

tools-test:
	$(call need,ip:iproute2 ping:iputils-ping iperf3:iperf3 gcc:build-essential)

tools-kernels: tools-test
	$(call need,qemu-system-x86_64:qemu-system-x86 /usr/share/seabios/bios-256k.bin:seabios /usr/bin/busybox:busybox-static \
	  mke2fs:e2fsprogs xz:xz-utils ldd:libc-bin)

tools-generate:
	$(call need,clang-19:clang-19 llvm-strip-19:llvm-19 protoc:protobuf-compiler \
	  /usr/include/bpf/bpf_helpers.h:libbpf-dev /usr/include/google/protobuf/timestamp.proto:libprotobuf-dev)

tools-lint:
	$(call need,clang-format-19:clang-format-19)
	@[ -x $(BIN)/golangci-lint ] || GOBIN=$(CURDIR)/$(BIN) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

tools-bench:
	$(call need,ip:iproute2 iperf3:iperf3 iptables:iptables nft:nftables)

# Kubernetes' programs are built from source: long the first time, kept under bin/kube/.
tools-kube: tools-test
	$(call need,containerd:containerd runc:runc nice:coreutils ldd:libc-bin /usr/bin/busybox:busybox-static curl:curl dig:bind9-dnsutils \
	  /usr/bin/nc.openbsd:netcat-openbsd iperf:iperf bash:bash)
	$(GO) run ./test/kube build

tools-sbom:
	@[ -x $(BIN)/cyclonedx-gomod ] || GOBIN=$(CURDIR)/$(BIN) $(GO) install github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0

tools-vuln:
	@[ -x $(BIN)/govulncheck ] || GOBIN=$(CURDIR)/$(BIN) $(GO) install golang.org/x/vuln/cmd/govulncheck@v1.9.0
