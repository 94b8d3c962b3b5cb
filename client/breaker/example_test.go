package breaker_test

import (
	"context"
	"fmt"

	"github.com/afex/hystrix-go/hystrix"
	"github.com/micro/go-micro/client"
	"github.com/micro/go-micro/errors"
	hystrixplugin "github.com/micro/go-plugins/wrapper/breaker/hystrix"

	"github.com/gomicroexample/basis/client/breaker"
)

// refusing is a client of a server that has something against the request.
type refusing struct{ client.Client }

func (refusing) Call(context.Context, client.Request, any, ...client.CallOption) error {
	return errors.BadRequest("greeter", "name is empty")
}

// A circuit that one failure would open stays closed: that these calls fail is the
// caller's own fault.
func ExampleGuard() {
	hystrix.ConfigureCommand("greeter.Hello", hystrix.CommandConfig{
		ErrorPercentThreshold:  1,
		RequestVolumeThreshold: 1,
		MaxConcurrentRequests:  2 + breaker.Headroom,
	})
	c := breaker.Guard(hystrixplugin.NewClientWrapper(), 2)(refusing{client.NewClient()})
	for range 3 {
		err := c.Call(context.Background(), c.NewRequest("greeter", "Hello", nil), nil)
		fmt.Println(errors.Parse(err.Error()).Detail)
	}
	// Output:
	// name is empty
	// name is empty
	// name is empty
}
