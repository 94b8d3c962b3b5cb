# Builds one image for each program: --target srv and --target client.
FROM golang:1.26 AS build
WORKDIR /src
# Dependencies change less often than the code, so they have their own layer.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /out/ ./srv ./client

# Both images have labels, an unprivileged user, and the public CAs for HTTPS to Consul or Jaeger.
# To use other CAs, mount a file over ca-certificates.crt.
FROM scratch AS base
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Basis" \
      org.opencontainers.image.source="https://github.com/gomicroexample/basis" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
USER 65532:65532

# The programs serve metrics and health at this address. Other containers cannot reach this address.
# The health check uses the same variable. A server is healthy when it has registered, and a client
# is healthy when it has found a server. The registry may start after the pair, so both images have
# a start period of two minutes. A swarm replaces an unhealthy container.
ENV BASIS_METRICS_ADDRESS=127.0.0.1:9464

FROM base AS srv
COPY --from=build /out/srv /srv
ENTRYPOINT ["/srv"]
HEALTHCHECK --interval=5s --timeout=5s --start-period=2m --retries=3 CMD ["/srv", "--health_check"]

FROM base AS client
COPY --from=build /out/client /client
ENTRYPOINT ["/client"]
HEALTHCHECK --interval=5s --timeout=5s --start-period=2m --retries=3 CMD ["/client", "--health_check"]
