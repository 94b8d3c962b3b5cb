# Everything here needs Go and make only; what a target needs beyond that, it says.

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/basis/bin

# Where "make proto" writes; its test writes elsewhere and compares.
PROTO_OUT := .

.PHONY: proto

# Regenerates proto/*.go. Needs protoc (Debian and Ubuntu: apt install protobuf-compiler).
# The micro plugin comes from go-micro v2, the only one whose module can still be fetched:
# its output is v1's but for the import path, which is rewritten.
proto:
	@command -v protoc >/dev/null || { echo 'make proto: no protoc on PATH; install protobuf-compiler' >&2; exit 1; }
	go build -o $(CACHE)/protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go
	cd tools/protoc-gen-micro && go build -o $(CACHE)/protoc-gen-micro github.com/micro/micro/v2/cmd/protoc-gen-micro
	protoc --plugin=$(CACHE)/protoc-gen-go --plugin=$(CACHE)/protoc-gen-micro \
		--go_out=paths=source_relative:$(PROTO_OUT) --micro_out=paths=source_relative:$(PROTO_OUT) proto/basis.proto
	sed 's|github.com/micro/go-micro/v2/|github.com/micro/go-micro/|' \
		$(PROTO_OUT)/proto/basis.pb.micro.go >$(PROTO_OUT)/proto/basis.micro.go
	rm $(PROTO_OUT)/proto/basis.pb.micro.go
