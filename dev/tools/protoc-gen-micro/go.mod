// This module is for protoc-gen-micro, the plugin that generates the code of the service. "make
// proto" in the project's top directory runs the plugin.
module github.com/gomicroexample/basis/dev/tools/protoc-gen-micro

go 1.25.8

tool github.com/micro/micro/v2/cmd/protoc-gen-micro

require (
	github.com/golang/protobuf v1.4.2 // indirect
	github.com/micro/micro/v2 v2.9.3 // indirect
	google.golang.org/genproto v0.0.0-20191216164720-4f79533eabd1 // indirect
	google.golang.org/protobuf v1.23.0 // indirect
)
