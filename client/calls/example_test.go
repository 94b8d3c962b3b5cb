package calls_test

import (
	"context"
	"fmt"

	"github.com/gomicroexample/basis/client/calls"
)

// Two callers share four calls, which end in any order.
func ExampleMake() {
	greet := func(context.Context) calls.Result { return calls.Result{Answer: "Hello John"} }
	left := calls.Make(context.Background(), calls.Plan{Requests: 4, Concurrency: 2}, greet, func(r calls.Result) {
		fmt.Println(r.Number, r.Answer)
	})
	fmt.Println(left, "left")
	// Unordered output:
	// 1 Hello John
	// 2 Hello John
	// 3 Hello John
	// 4 Hello John
	// 0 left
}
