# Everything here needs Go and make; what a target needs beyond that, it says.

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
REVIVE := github.com/mgechev/revive@v1.15.0

# Where "make proto" writes; its test writes elsewhere and compares.
PROTO_OUT := .

# Set by "make e2e": then missing tools fail the end-to-end scripts.
REQUIRED :=

# What runs docker-compose.yml.
COMPOSE = $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)

# Builds the images of the pair. Their labels tell the revision.
BUILD_IMAGES = $(COMPOSE) build --build-arg REVISION=$(shell git rev-parse HEAD)

# How long "make fuzz" makes up inputs for each of its tests.
FUZZ := 30s

# How long "make soak" takes.
SOAK := 10m

.PHONY: demo up down logs swarm-up swarm-down images test e2e e2e-docker fuzz soak reliability bench bench-quick pgo tools tools-path certs proto lint

# The article's steps, one after another. KEEP=1 keeps everything running.
demo:
	@go build -o bin/demo ./internal/demo
	@exec bin/demo $(if $(KEEP),-keep)

# The whole demo in containers: needs Docker with Compose, and curl.
up:
	$(BUILD_IMAGES)
	$(COMPOSE) up --detach
	@tools/await-trace http://127.0.0.1:8500 http://127.0.0.1:16686

# Leaves nothing but the images.
down:
	$(COMPOSE) down --volumes --remove-orphans

logs:
	$(COMPOSE) logs --follow --tail=20

# The same on a swarm, which "docker swarm init" makes of one machine.
swarm-up:
	$(BUILD_IMAGES)
	@tools/swarm up

swarm-down:
	@tools/swarm down

# Makes the images of Go, Consul and Jaeger on this machine, where they cannot be
# pulled. Needs busybox, statically linked (Debian and Ubuntu: busybox-static).
images: tools
	@tools/images

# Unit and in-process tests and the tour over mDNS; then the end-to-end scripts and
# the other documents' commands where Consul and Jaeger are at hand, and a moment of
# the bench where Consul is. The race detector needs a C compiler.
test:
	go vet ./...
	go test -race $$(go list ./... | grep -v /e2e$$)
	cd e2e && go test -race -count=1 -timeout=30m $(if $(REQUIRED),-args -required)
	cd bench && go test -race ./contender
	cd bench && go test -race -count=1 -timeout=10m $(if $(REQUIRED),-args -required)

# The end-to-end scripts alone, with what they run on built first.
e2e: tools
	cd e2e && go test -race -count=1 -timeout=30m -args -required

# What docker-compose.yml says, on a Docker engine: the one that is there or, as
# root, one of its own.
e2e-docker:
	tools/engine sh -c 'tools/images -missing && $(BUILD_IMAGES) && cd e2e/docker && go test -count=1 -timeout=10m -v -args -docker'

# Made-up names for the handler, and made-up messages and metadata over the wire.
# What breaks something is kept in testdata/fuzz, and tried by "make test" then.
fuzz:
	go test -run='^$$' -fuzz='^FuzzHello$$' -fuzztime=$(FUZZ) ./srv/handler
	go test -run='^$$' -fuzz='^FuzzHello$$' -fuzztime=$(FUZZ) ./srv

# 500 calls a second while servers come and go, and what grows meanwhile. SOAK=60s
# tries it.
soak: tools
	cd e2e && go test -count=1 -timeout=0 -run=TestSoak -args -required -soak=$(SOAK)

# Writes docs/reliability.md: what the faults in e2e/testdata/faults, the soak and
# bad input came to. About 16 minutes.
reliability: tools
	cd e2e && go test -count=1 -timeout=0 -run='TestScripts/^(grpcurl|ghz|garbage|halfopen|deaf|flood)$$|TestFaults|TestSoak' -args -required -soak=$(SOAK) -reliability=../docs/reliability.md

# Writes docs/benchmarks.md: the pair beside its peers. About 10 minutes, on a
# Linux machine that has nothing else to do and the Consul of "make tools".
bench:
	cd bench && go run . -o ../docs/benchmarks.md

# The same in about 2 minutes, on stdout.
bench-quick:
	@cd bench && go run . -quick

# Profiles the pair under load and writes the default.pgo beside each main.go, which
# go build uses: after larger changes to them, and with a new Go. Takes half a minute
# and what two builds take, on a machine that has nothing else to do, and needs the
# Consul of "make tools".
pgo:
	@go run ./tools/pgo

# Builds Consul, Jaeger, grpcurl and ghz from source, once per machine: about 15
# minutes on two cores. CONSUL_BIN, JAEGER_BIN, GRPCURL_BIN and GHZ_BIN name
# binaries to use instead.
tools:
	@go run ./tools

tools-path:
	@go run ./tools -path

# A throw-away CA and certificates of srv and client in certs/, for trying TLS.
certs:
	@go run ./tools/certs

# Regenerates proto/*.go. Needs protoc (Debian and Ubuntu: protobuf-compiler).
# The micro plugin comes from go-micro v2, the only one whose module can still be
# fetched: its output is v1's but for the import path, which is rewritten.
proto: BIN = $(shell go run ./tools -path)
proto:
	@command -v protoc >/dev/null || { echo 'make proto: no protoc on PATH; install protobuf-compiler' >&2; exit 1; }
	go build -o $(BIN)/protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go
	cd tools/protoc-gen-micro && go build -o $(BIN)/protoc-gen-micro github.com/micro/micro/v2/cmd/protoc-gen-micro
	protoc --plugin=$(BIN)/protoc-gen-go --plugin=$(BIN)/protoc-gen-micro \
		--go_out=paths=source_relative:$(PROTO_OUT) --micro_out=paths=source_relative:$(PROTO_OUT) proto/basis.proto
	sed 's|github.com/micro/go-micro/v2/|github.com/micro/go-micro/|' \
		$(PROTO_OUT)/proto/basis.pb.micro.go >$(PROTO_OUT)/proto/basis.micro.go
	rm $(PROTO_OUT)/proto/basis.pb.micro.go

lint:
	test -z "$$(gofmt -l . | tee /dev/stderr)"
	go mod tidy -diff
	go vet ./...
	go run $(STATICCHECK) ./...
	go run $(REVIVE) -config .ci/revive.toml -set_exit_status ./...
	cd bench && go mod tidy -diff && go vet ./... && go run $(STATICCHECK) ./...
