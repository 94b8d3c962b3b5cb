# All targets need make. Most targets also need Go. The comment above a target names everything else
# that the target needs. There are several Go modules. The module in this directory has the programs
# srv and client. The module in dev has code that is not part of srv or client. The bench in
# dev/bench has its own module. The third-party programs in dev/tools also have their own modules.

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
REVIVE := github.com/mgechev/revive@v1.15.0
MISSPELL := github.com/golangci/misspell/cmd/misspell@v0.8.0

# "make proto" writes into this directory. A test runs "make proto" with another directory, and
# compares the generated files with the committed files.
PROTO_OUT := .

# With REQUIRED=1, tests fail if a tool that they need is missing. Without REQUIRED=1, these tests
# are skipped.
REQUIRED :=

# The option -required for tests that need root. If you are not root, these tests are skipped.
REQUIRED_AS_ROOT = $(if $(and $(REQUIRED),$(filter 0,$(shell id -u))),-required)

# The command of Compose: "docker compose" if it is installed, and otherwise "docker-compose".
COMPOSE = $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)

# The Compose files that "make up" uses. METRICS=1 adds Prometheus.
UP_FILES = $(if $(METRICS),-f docker-compose.yml -f docker-compose.override.yml -f docker-compose.metrics.yml)

# Builds the images of the pair. The images' labels have the revision.
BUILD_IMAGES = $(COMPOSE) build --build-arg REVISION=$(shell git rev-parse HEAD)

# Runs a command with a Docker engine that has all images.
WITH_IMAGES = dev/tools/engine sh -c 'dev/tools/images -missing && $(BUILD_IMAGES) && exec sh -c "$$0"'

# How long "make fuzz" runs each of its tests.
FUZZ := 30s

# How long "make soak" makes calls.
SOAK := 10m

.PHONY: help demo up down logs swarm-up swarm-down images test e2e e2e-docker e2e-cluster cluster fuzz soak reliability bench bench-quick pictures tools tools-path tools-ui certs proto lint

help: ## lists the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# KEEP=1 keeps everything running.
demo: ## shows the article's steps, one after another
	@go -C dev build -o ../bin/demo ./demo
	@exec bin/demo $(if $(KEEP),-keep)

# Needs Docker with Compose, and curl. "make down" and "make logs" also need Docker with Compose.
up: ## starts the whole demo in containers (METRICS=1 with Prometheus)
	$(BUILD_IMAGES)
	$(COMPOSE) $(UP_FILES) up --detach
	@dev/tools/await-trace http://127.0.0.1:8500 http://127.0.0.1:16686
	@$(if $(METRICS),echo "Prometheus: http://127.0.0.1:9090/alerts")

down: ## stops the demo in containers, and removes everything except the images
	$(COMPOSE) down --volumes --remove-orphans

logs: ## follows the containers' logs
	$(COMPOSE) logs --follow --tail=20

# Needs a swarm. "docker swarm init" makes a swarm of one machine.
swarm-up: ## starts the demo on a swarm
	$(BUILD_IMAGES)
	@dev/tools/swarm up

swarm-down: ## removes the demo from a swarm
	@dev/tools/swarm down

# Use this target on a machine that cannot pull the images from a registry. The target needs Docker
# and a statically linked busybox (on Debian and Ubuntu, the package busybox-static).
images: tools ## makes the images of Go, Consul, Jaeger and Prometheus on this machine
	@dev/tools/images

# Runs unit tests, in-process tests, and the tour over mDNS. If the tools that "make tools" builds
# are installed, the target also runs the end-to-end scripts and the commands of the other
# documents. If Chromium is installed too, the target tests the pages of Consul and Jaeger. If
# Consul is installed, the target runs a short bench. The race detector needs a C compiler. In dev,
# -count=1 prevents cached results: go test does not notice changes of files outside of the module.
test: ## runs all tests, under the race detector
	go vet ./...
	go test -race ./...
	cd dev && go vet ./...
	cd dev && go test -race -count=1 $$(go list ./... | grep -Ev '/(e2e|browser|browser/pictures)$$')
	cd dev && go test -race -count=1 -p=1 -timeout=20m ./browser/... $(if $(REQUIRED),-args -required)
	cd dev/e2e && go test -race -count=1 -timeout=30m $(if $(REQUIRED),-args -required)
	cd dev/bench && go test -race ./contender
	cd dev/bench && go test -race -count=1 -timeout=10m $(if $(REQUIRED),-args -required)

# First builds the tools that the scripts need.
e2e: tools ## runs the end-to-end scripts alone
	cd dev/e2e && go test -race -count=1 -timeout=30m -args -required

# Uses the Docker engine that is running. If no engine is running, dev/tools/engine starts an
# engine. For this, it needs root and apt-get. If you are root on Linux, the tests also start three
# engines, which form a swarm.
e2e-docker: ## tests the docker-compose files on Docker engines
	$(WITH_IMAGES) 'cd dev/e2e/docker && go test -count=1 -timeout=20m -v -args -docker $(if $(REQUIRED),-required) \
		&& cd ../cluster && go test -count=1 -timeout=20m -v -run=TestSwarm -args -swarm $(REQUIRED_AS_ROOT)'

# Tests faults between hosts: dead hosts, cut links, Consul without a quorum. Needs root, Linux, and
# an otherwise idle machine. If you are not root, the target skips the scripts and says so. Each
# host is a network namespace: see dev/internal/cluster.
e2e-cluster: tools ## breaks a cluster of network namespaces under load
	cd dev/e2e/cluster && go test -count=1 -timeout=30m . -args -cluster $(REQUIRED_AS_ROOT)

# Needs root and Linux. Runs until Ctrl-C.
cluster: tools ## starts the pair on a cluster of network namespaces, for looking around
	@go -C dev build -o ../bin/cluster ./cluster
	@exec bin/cluster

# The first test calls the handler with generated names. The second test sends generated messages
# and metadata to the server over gRPC. If a test fails, Go stores its input in testdata/fuzz, and
# "make test" then tests this input too.
fuzz: ## tests the server with generated input (FUZZ=5m for longer)
	go test -run='^$$' -fuzz='^FuzzHello$$' -fuzztime=$(FUZZ) ./srv/handler
	go test -run='^$$' -fuzz='^FuzzHello$$' -fuzztime=$(FUZZ) ./srv

# Makes 500 calls per second while the test replaces servers. Checks that memory, goroutines and
# connections do not grow.
soak: tools ## makes calls for ten minutes (SOAK=60s for fewer)
	cd dev/e2e && go test -count=1 -timeout=0 -run=TestSoak -args -required -soak=$(SOAK)

# Runs the faults in dev/e2e/testdata/faults, the soak, the tests with bad input, the faults of
# e2e-cluster, and the faults of the swarm in e2e-docker. This takes about 30 minutes, and needs
# root, Linux and an otherwise idle machine.
reliability: tools ## measures calls during faults, and writes docs/reliability.md
	cd dev/e2e && go test -count=1 -timeout=0 -run='TestScripts/^(grpcurl|ghz|gzip|garbage|halfopen|deaf|flood)$$|TestFaults|TestSoak' -args -required -soak=$(SOAK) -reliability=../../docs/reliability.md
	cd dev/e2e/cluster && go test -count=1 -timeout=30m -args -cluster -required -reliability=../../../docs/reliability.md
	$(WITH_IMAGES) 'cd dev/e2e/cluster && go test -count=1 -timeout=20m -run=TestSwarm -args -swarm -required -reliability=../../../docs/reliability.md'

# The bench takes at most 15 minutes. The first run also builds the contenders. The bench needs
# Linux, an otherwise idle machine, and the Consul of "make tools". To measure only some contenders,
# run "go -C dev/bench run . -only='limit|basis|gokit'".
bench: ## measures the pair and comparable frameworks, and writes docs/benchmarks.md
	go -C dev/bench run . -o ../../docs/benchmarks.md

bench-quick: ## prints a shorter measurement, in about 3 minutes
	@go -C dev/bench run . -quick

# After "make tools" has built the tools, this takes a minute. It needs Chromium (on Debian, the
# package chromium). Look at the pictures before you commit them, because no test compares them.
pictures: tools ## takes the pictures in docs/pictures
	@go -C dev run ./browser/pictures

# The builds take about 20 minutes on two cores. Each machine needs these builds only once. To use
# other binaries, set CONSUL_BIN, JAEGER_BIN, PROMETHEUS_BIN, PROMTOOL_BIN, GRPCURL_BIN, GHZ_BIN or
# GRPC_HEALTH_PROBE_BIN.
tools: ## builds Consul, Jaeger with its UI, Prometheus and three gRPC clients from source
	@go -C dev run ./tools

tools-path: ## prints the directory that "make tools" builds into
	@go -C dev run ./tools -path

tools-ui: ## prints the directory of Jaeger's pages, for Jaeger's setting assets_path
	@go -C dev run ./tools -ui

certs: ## makes a CA and certificates in certs/, only for trying TLS
	@go -C dev build -o ../bin/certs ./tools/certs
	@bin/certs

# Go builds buf and its two plugins from the modules in dev/tools. The first time, this takes some
# minutes. After that, it takes about a second. The plugin protoc-gen-micro is the version for
# go-micro v2, because the version for go-micro v1 can no longer be downloaded. The two versions
# generate the same code, except for the import path of go-micro. sed changes this path.
proto: ## regenerates proto/*.go
	go -C dev/tools/buf tool buf generate --output $(abspath $(PROTO_OUT))
	sed 's|github.com/micro/go-micro/v2/|github.com/micro/go-micro/|' \
		$(PROTO_OUT)/proto/basis.pb.micro.go >$(PROTO_OUT)/proto/basis.micro.go
	rm $(PROTO_OUT)/proto/basis.pb.micro.go

# The tests in dev/architecture check the pair's packages, their imports, the required modules and
# the generated code.
lint: ## checks format, modules and spelling, and runs go vet, staticcheck and revive
	! gofmt -l . | grep .
	git ls-files -z | xargs -0 go run $(MISSPELL) -locale US -error
	go mod tidy -diff
	go vet ./...
	go run $(STATICCHECK) ./...
	go run $(REVIVE) -config .ci/revive.toml -set_exit_status ./...
	cd dev && go mod tidy -diff && go vet ./... && go run $(STATICCHECK) ./...
	cd dev && go run $(REVIVE) -config ../.ci/revive.toml -set_exit_status ./...
	cd dev && go test -count=1 -timeout=30m ./architecture
	cd dev/bench && go mod tidy -diff && go vet ./... && go run $(STATICCHECK) ./...
