// This module is for protoc-gen-go, the plugin that generates the code of the messages. "make
// proto" in the project's top directory runs the plugin.
module github.com/gomicroexample/basis/dev/tools/protoc-gen-go

go 1.25.8

tool google.golang.org/protobuf/cmd/protoc-gen-go

// The pair's go.mod requires the same version, because the generated code needs this version of the
// module or a later one.
require google.golang.org/protobuf v1.36.12 // indirect
