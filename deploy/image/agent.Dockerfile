# The image of a node, as `make images` makes it without Docker. For several architectures at once, from the top directory:
#
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=$(git describe --tags --always) -f deploy/image/agent.Dockerfile .
FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
ARG TARGETARCH
ARG VERSION
COPY . /src
WORKDIR /src
RUN GOARCH=$TARGETARCH make build BIN=/out VERSION=$VERSION && ln -sf hypha /out/cilium-dbg && mkdir -m 1777 /out/tmp

FROM scratch
ARG VERSION
LABEL org.opencontainers.image.title=hypha-agent \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.source=https://github.com/hypha-net/hypha \
      org.opencontainers.image.licenses=Apache-2.0
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
COPY --from=build /out/hypha-agent /usr/bin/hypha-agent
COPY --from=build /out/hypha /usr/bin/hypha
COPY --from=build /out/cilium /usr/bin/cilium
COPY --from=build /out/cilium-dbg /usr/bin/cilium-dbg
COPY --from=build /out/hubble /usr/bin/hubble
COPY --from=build /out/hypha-cni /opt/cni/bin/hypha-cni
COPY --from=build /out/tmp /tmp
ENTRYPOINT ["/usr/bin/hypha-agent"]
