package limiter_test

import (
	"context"
	"fmt"
	"time"

	"github.com/micro/go-micro/client"

	"github.com/gomicroexample/basis/client/limiter"
)

// answering is a client whose server responds at once.
type answering struct{ client.Client }

func (answering) Call(context.Context, client.Request, any, ...client.CallOption) error { return nil }

// A client calls two services, which share the limit of ten calls per second. The first of three
// calls is sent at once. Each further call is sent a tenth of a second after the previous call.
func ExampleNew() {
	c := limiter.New(context.Background(), 10, nil)(answering{client.NewClient()})
	start := time.Now()
	for _, service := range []string{"greeter", "weather", "greeter"} {
		req := c.NewRequest(service, "Service.Method", nil)
		if err := c.Call(context.Background(), req, nil); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(time.Since(start) >= 199*time.Millisecond)
	// Output: true
}

// A call whose turn is after its deadline fails at once.
func ExampleNew_deadline() {
	c := limiter.New(context.Background(), 1, nil)(answering{client.NewClient()})
	for range 2 {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		fmt.Println(c.Call(ctx, c.NewRequest("greeter", "Greeter.Hello", nil), nil))
		cancel()
	}
	// Output:
	// <nil>
	// waiting for the rate limiter: the turn of this call is after its deadline: context deadline exceeded
}
