# Both programs, each in an image of its own: --target srv and --target client.
FROM golang:1.26 AS build
WORKDIR /src
# Dependencies change less often than the code, and are a layer of their own.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /out/ ./srv ./client

# What the images share: labels, a user without rights, and the CAs that HTTPS to Consul or
# Jaeger is checked against. A file that is mounted over the CAs replaces them.
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

# Metrics and health, for this container alone. The health check asks the address in the same
# variable. A server is healthy once it is registered, and a client once it has found a server,
# so both have two minutes for a registry that is not up yet. A swarm replaces a container that
# is unhealthy.
ENV BASIS_METRICS_ADDRESS=127.0.0.1:9464

FROM base AS srv
COPY --from=build /out/srv /srv
ENTRYPOINT ["/srv"]
HEALTHCHECK --interval=5s --timeout=5s --start-period=2m --retries=3 CMD ["/srv", "--health_check"]

FROM base AS client
COPY --from=build /out/client /client
ENTRYPOINT ["/client"]
HEALTHCHECK --interval=5s --timeout=5s --start-period=2m --retries=3 CMD ["/client", "--health_check"]
