// The bench has a module of its own: what the pair is compared with is no part
// of it.
module github.com/gomicroexample/basis/bench

go 1.26.0

// What is measured is this very commit.
replace github.com/gomicroexample/basis => ../

require (
	github.com/HdrHistogram/hdrhistogram-go v1.4.0
	github.com/gomicroexample/basis v0.0.0-00010101000000-000000000000
	google.golang.org/grpc v1.85.0
)

require (
	github.com/go-log/log v0.1.0 // indirect
	github.com/golang/protobuf v1.5.4 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/micro/go-micro v1.8.2 // indirect
	github.com/micro/mdns v0.2.0 // indirect
	github.com/miekg/dns v1.1.73 // indirect
	github.com/mitchellh/hashstructure v1.1.0 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20261026165753-2ffab32bce7e // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

// As in the pair's own go.mod, where such lines hold for that module only.
exclude github.com/asim/go-bson v0.0.0-20160318195205-84522947cabd
