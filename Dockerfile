# Serval's two daemons. One stage builds both; each is a target of its own, with a static program, the licences of what it is made
# of, the public certificate authorities, and nothing else: no shell, no package manager, nobody but UID 65532.
#
#   docker build --target serval-bridge --build-arg VERSION=0.1.0 -t serval-bridge:0.1.0 .
#   docker build --target serval-worker --build-arg VERSION=0.1.0 -t serval-worker:0.1.0 .
#   (docker buildx build --platform linux/amd64,linux/arm64 ... for both architectures)
#
# The images have no base to pin. The build image has: a release gives GO_IMAGE by digest (docs/operations.md). What comes out is the
# same, byte for byte, on any machine with this Go (make release-dry-run), whatever else is in that image.
ARG GO_IMAGE=docker.io/library/golang:1.26.8-bookworm

FROM --platform=$BUILDPLATFORM ${GO_IMAGE} AS build
# Without defaults: those would win over the platform that is asked for.
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=devel
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# Each image's file system, laid out here, so that it is one layer and nothing in it depends on the builder.
RUN mkdir -p /out/bridge/etc/ssl/certs /out/bridge/var/lib/serval /out/worker/etc/ssl/certs \
 && cp /etc/ssl/certs/ca-certificates.crt /out/bridge/etc/ssl/certs/ \
 && cp /etc/ssl/certs/ca-certificates.crt /out/worker/etc/ssl/certs/ \
 && chown 65532:65532 /out/bridge/var/lib/serval
RUN for name in bridge worker; do \
      CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false \
        -ldflags "-s -w -X main.stamped=$VERSION" -o /out/$name/ ./cmd/serval-$name || exit 1; \
    done \
 && go run ./release/licences >/out/bridge/LICENCES.txt && cp /out/bridge/LICENCES.txt /out/worker/

FROM scratch AS serval-bridge
ARG VERSION=devel
ARG REVISION=unknown
LABEL org.opencontainers.image.title="serval-bridge" \
      org.opencontainers.image.description="Signs people in, decides on requests, opens AWS sessions" \
      org.opencontainers.image.source="https://github.com/serval-bridge/serval-bridge" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /out/bridge /
USER 65532:65532
EXPOSE 8080 9090
ENTRYPOINT ["/serval-bridge"]
CMD ["serve"]

FROM scratch AS serval-worker
ARG VERSION=devel
ARG REVISION=unknown
LABEL org.opencontainers.image.title="serval-worker" \
      org.opencontainers.image.description="Reads the IAM roles that are tagged serval and pushes them to the bridge" \
      org.opencontainers.image.source="https://github.com/serval-bridge/serval-bridge" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /out/worker /
USER 65532:65532
EXPOSE 9090
ENTRYPOINT ["/serval-worker"]
CMD ["run"]
