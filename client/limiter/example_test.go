package limiter_test

import (
	"context"
	"fmt"
	"time"

	"github.com/micro/go-micro/client"

	"github.com/gomicroexample/basis/client/limiter"
)

// answering is a client of a server that answers at once.
type answering struct{ client.Client }

func (answering) Call(context.Context, client.Request, any, ...client.CallOption) error { return nil }

// Of three calls at ten a second the first is sent at once, and each of the others
// a tenth of a second after the one before.
func ExampleNew() {
	c := limiter.New(context.Background(), 10)(answering{})
	start := time.Now()
	for range 3 {
		if err := c.Call(context.Background(), nil, nil); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(time.Since(start) >= 199*time.Millisecond)
	// Output: true
}
