# The image of the operator, as `make images` makes it without Docker. For several architectures at once, from the top directory:
#
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=$(git describe --tags --always) -f deploy/image/operator.Dockerfile .
FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
ARG TARGETARCH
ARG VERSION
COPY . /src
WORKDIR /src
RUN GOARCH=$TARGETARCH make build BIN=/out VERSION=$VERSION CMDS=./cmd/hypha-operator

FROM scratch
ARG VERSION
LABEL org.opencontainers.image.title=hypha-operator \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.source=https://github.com/hypha-net/hypha \
      org.opencontainers.image.licenses=Apache-2.0
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
COPY --from=build /out/hypha-operator /usr/bin/hypha-operator
ENTRYPOINT ["/usr/bin/hypha-operator"]
