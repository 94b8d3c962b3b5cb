# Everything here needs Go and make; what a target needs beyond that, it says. The pair
# is the module in this directory. What neither program links is in dev, a module of its
# own, and so are dev/bench and each program that is built from source, below dev/tools.

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
REVIVE := github.com/mgechev/revive@v1.15.0

# Where "make proto" writes; its test writes elsewhere and compares.
PROTO_OUT := .

# Set by "make e2e": then missing tools fail the end-to-end scripts.
REQUIRED :=

# What runs docker-compose.yml.
COMPOSE = $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)

# What "make up" starts. METRICS=1 adds Prometheus.
UP_FILES = $(if $(METRICS),-f docker-compose.yml -f docker-compose.override.yml -f docker-compose.metrics.yml)

# Builds the images of the pair. Their labels tell the revision.
BUILD_IMAGES = $(COMPOSE) build --build-arg REVISION=$(shell git rev-parse HEAD)

# How long "make fuzz" makes up inputs for each of its tests.
FUZZ := 30s

# How long "make soak" takes.
SOAK := 10m

.PHONY: help demo up down logs swarm-up swarm-down images test e2e e2e-docker e2e-cluster cluster fuzz soak reliability bench bench-quick pictures tools tools-path tools-ui certs proto lint

help: ## lists the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# KEEP=1 keeps everything running.
demo: ## shows the article's steps, one after another
	@go -C dev build -o ../bin/demo ./demo
	@exec bin/demo $(if $(KEEP),-keep)

# Needs Docker with Compose, and curl.
up: ## starts the whole demo in containers (METRICS=1 with Prometheus)
	$(BUILD_IMAGES)
	$(COMPOSE) $(UP_FILES) up --detach
	@dev/tools/await-trace http://127.0.0.1:8500 http://127.0.0.1:16686
	@$(if $(METRICS),echo "Prometheus: http://127.0.0.1:9090/alerts")

down: ## ends the demo in containers, and leaves nothing but the images
	$(COMPOSE) down --volumes --remove-orphans

logs: ## follows the containers' logs
	$(COMPOSE) logs --follow --tail=20

# "docker swarm init" makes a swarm of one machine.
swarm-up: ## starts the demo on a swarm
	$(BUILD_IMAGES)
	@dev/tools/swarm up

swarm-down: ## ends the demo on a swarm
	@dev/tools/swarm down

# For machines that cannot pull them. Needs busybox, statically linked (Debian and
# Ubuntu: busybox-static).
images: tools ## makes the images of Go, Consul, Jaeger and Prometheus on this machine
	@dev/tools/images

# Unit and in-process tests, and the tour over mDNS. Where Consul and Jaeger are at hand, also the
# end-to-end scripts, the other documents' commands and, with Chromium, their pages; where Consul
# is, a moment of the bench. The race detector needs a C compiler.
test: ## runs all tests, under the race detector
	go vet ./...
	go test -race ./...
	cd dev && go vet ./...
	cd dev && go test -race $$(go list ./... | grep -Ev '/(e2e|browser|browser/pictures)$$')
	cd dev && go test -race -count=1 -p=1 -timeout=20m ./browser/... $(if $(REQUIRED),-args -required)
	cd dev/e2e && go test -race -count=1 -timeout=30m $(if $(REQUIRED),-args -required)
	cd dev/bench && go test -race ./contender
	cd dev/bench && go test -race -count=1 -timeout=10m $(if $(REQUIRED),-args -required)

# Builds first what the scripts run on.
e2e: tools ## runs the end-to-end scripts alone
	cd dev/e2e && go test -race -count=1 -timeout=30m -args -required

# The engine is the one that is there or, as root, one of its own.
e2e-docker: ## tries on a Docker engine what docker-compose.yml says
	dev/tools/engine sh -c 'dev/tools/images -missing && $(BUILD_IMAGES) && cd dev/e2e/docker && go test -count=1 -timeout=20m -v -args -docker $(if $(REQUIRED),-required)'

# Faults between hosts: dead hosts, cut links, Consul without a quorum. Takes root, on Linux, and a
# machine with nothing else to do; without root it says that it leaves them out. What a host is:
# dev/internal/cluster.
e2e-cluster: tools ## breaks a cluster of network namespaces under load
	cd dev/e2e/cluster && go test -count=1 -timeout=30m . -args -cluster $(if $(REQUIRED),-required)

# Takes root, on Linux, and runs until Ctrl-C.
cluster: tools ## starts the pair on a cluster of network namespaces, for looking around
	@go -C dev build -o ../bin/cluster ./cluster
	@exec bin/cluster

# Made-up names for the handler, and made-up messages and metadata over the wire.
# What breaks something is kept in testdata/fuzz, and tried by "make test" then.
fuzz: ## makes up input for the server (FUZZ=5m for longer)
	go test -run='^$$' -fuzz='^FuzzHello$$' -fuzztime=$(FUZZ) ./srv/handler
	go test -run='^$$' -fuzz='^FuzzHello$$' -fuzztime=$(FUZZ) ./srv

# 500 calls a second while servers come and go, and what grows meanwhile.
soak: tools ## makes calls for ten minutes (SOAK=60s for fewer)
	cd dev/e2e && go test -count=1 -timeout=0 -run=TestSoak -args -required -soak=$(SOAK)

# Runs the faults in dev/e2e/testdata/faults, the soak and bad input. Takes about 16 minutes.
reliability: tools ## measures calls during faults, and writes docs/reliability.md
	cd dev/e2e && go test -count=1 -timeout=0 -run='TestScripts/^(grpcurl|ghz|gzip|garbage|halfopen|deaf|flood)$$|TestFaults|TestSoak' -args -required -soak=$(SOAK) -reliability=../../docs/reliability.md

# Takes at most 15 minutes, on a Linux machine that has nothing else to do and the Consul
# of "make tools"; the first time also what building its contenders takes. "go -C dev/bench run .
# -only='limit|basis|gokit'" measures some of them.
bench: ## measures the pair beside its peers, and writes docs/benchmarks.md
	go -C dev/bench run . -o ../../docs/benchmarks.md

bench-quick: ## prints a shorter measurement, in about 3 minutes
	@go -C dev/bench run . -quick

# Takes a minute after the builds, and needs Chromium (Debian: chromium). Look at the pictures
# before you commit them: no test compares them.
pictures: tools ## takes the pictures in docs/pictures
	@go -C dev run ./browser/pictures

# Once per machine: about 20 minutes on two cores. CONSUL_BIN, JAEGER_BIN, PROMETHEUS_BIN,
# PROMTOOL_BIN, GRPCURL_BIN, GHZ_BIN and GRPC_HEALTH_PROBE_BIN name binaries to use instead.
tools: ## builds Consul, Jaeger with its UI, Prometheus and three gRPC clients from source
	@go -C dev run ./tools

tools-path: ## prints the directory that "make tools" builds into
	@go -C dev run ./tools -path

tools-ui: ## prints the directory of Jaeger's pages, for assets_path of a Jaeger
	@go -C dev run ./tools -ui

certs: ## makes a throw-away CA and certificates in certs/, for trying TLS
	@go -C dev build -o ../bin/certs ./tools/certs
	@bin/certs

# Go builds buf and its two plugins from the modules in dev/tools: some minutes the first
# time, about a second afterwards. The micro plugin comes from go-micro v2, the only one
# whose module can still be fetched. Its output is v1's but for the import path, which is
# rewritten.
proto: ## regenerates proto/*.go
	go -C dev/tools/buf tool buf generate --output $(abspath $(PROTO_OUT))
	sed 's|github.com/micro/go-micro/v2/|github.com/micro/go-micro/|' \
		$(PROTO_OUT)/proto/basis.pb.micro.go >$(PROTO_OUT)/proto/basis.micro.go
	rm $(PROTO_OUT)/proto/basis.pb.micro.go

# dev/architecture holds which packages and modules the pair may have, and what may import what.
lint: ## checks format, modules, and what go vet, staticcheck and revive find
	test -z "$$(gofmt -l . | tee /dev/stderr)"
	go mod tidy -diff
	go vet ./...
	go run $(STATICCHECK) ./...
	go run $(REVIVE) -config .ci/revive.toml -set_exit_status ./...
	cd dev && go mod tidy -diff && go vet ./... && go run $(STATICCHECK) ./...
	cd dev && go run $(REVIVE) -config ../.ci/revive.toml -set_exit_status ./...
	cd dev && go test -count=1 -timeout=30m ./architecture
	cd dev/bench && go mod tidy -diff && go vet ./... && go run $(STATICCHECK) ./...
