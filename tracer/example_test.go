package tracer_test

import (
	"fmt"
	"log"
	"strings"

	opentracing "github.com/opentracing/opentracing-go"

	"github.com/gomicroexample/basis/tracer"
)

// A call's metadata carries its trace from service to service. Usually go-plugins' opentracing
// wrappers write and read this metadata. In this example, the caller writes the metadata itself.
func ExampleNewTracer() {
	t, closer, err := tracer.NewTracer("greeter", tracer.DefaultAddress)
	if err != nil {
		log.Fatal(err)
	}
	defer closer.Close() // sends the remaining spans

	span := t.StartSpan("call")
	defer span.Finish()
	metadata := opentracing.TextMapCarrier{}
	if err := t.Inject(span.Context(), opentracing.TextMap, metadata); err != nil {
		log.Fatal(err)
	}
	ids := strings.Split(metadata["uber-trace-id"], ":")
	fmt.Println("of the trace, the span and its parent, and whether it is sampled:", len(ids))
	// Output: of the trace, the span and its parent, and whether it is sampled: 4
}
