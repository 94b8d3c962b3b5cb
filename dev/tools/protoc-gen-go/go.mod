// The plugin that writes the messages' code: "make proto" in the project's top
// directory.
module github.com/gomicroexample/basis/dev/tools/protoc-gen-go

go 1.25.8

tool google.golang.org/protobuf/cmd/protoc-gen-go

// The pair's go.mod requires the same version: the code needs a runtime no older than this.
require google.golang.org/protobuf v1.36.12 // indirect
