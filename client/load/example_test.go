package load_test

import (
	"context"
	"fmt"

	"github.com/gomicroexample/basis/client/load"
)

// Two callers share four calls. The calls end in any order.
func ExampleRun() {
	greet := func(context.Context) load.Result { return load.Result{Answer: "Hello John"} }
	inFlight := load.Run(context.Background(), load.Plan{Requests: 4, Concurrency: 2}, greet, func(r load.Result) {
		fmt.Println(r.Number, r.Answer)
	})
	fmt.Println(inFlight, "in flight")
	// Unordered output:
	// 1 Hello John
	// 2 Hello John
	// 3 Hello John
	// 4 Hello John
	// 0 in flight
}
