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

// rejecting is a client of a server that rejects every request.
type rejecting struct{ client.Client }

func (rejecting) Call(context.Context, client.Request, any, ...client.CallOption) error {
	return errors.BadRequest("greeter", "name is empty")
}

// With these settings, one failure of the service opens the circuit. In this example, all calls end
// with a client error. A client error is not a failure of the service, so the circuit stays closed.
func ExampleNew() {
	hystrix.ConfigureCommand("greeter.Hello", hystrix.CommandConfig{
		ErrorPercentThreshold:  1,
		RequestVolumeThreshold: 1,
		MaxConcurrentRequests:  2 + breaker.Headroom,
	})
	c := breaker.New(hystrixplugin.NewClientWrapper(), 2)(rejecting{client.NewClient()})
	for range 3 {
		err := c.Call(context.Background(), c.NewRequest("greeter", "Hello", nil), nil)
		fmt.Println(errors.Parse(err.Error()).Detail)
	}
	// Output:
	// name is empty
	// name is empty
	// name is empty
}

// weather is a client of two services. The service named weather fails.
type weather struct{ client.Client }

func (weather) Call(_ context.Context, req client.Request, _ any, _ ...client.CallOption) error {
	if req.Service() == "weather" {
		return errors.InternalServerError("weather", "no thermometer")
	}
	return nil
}

// A client calls two services. Each endpoint has its own circuit.
func ExampleNew_services() {
	hystrix.ConfigureCommand("weather.Weather.Now", hystrix.CommandConfig{
		ErrorPercentThreshold:  1,
		RequestVolumeThreshold: 1,
		MaxConcurrentRequests:  2 + breaker.Headroom,
	})
	c := breaker.New(hystrixplugin.NewClientWrapper(), 2)(weather{client.NewClient()})
	call := func(service, endpoint string) error {
		return c.Call(context.Background(), c.NewRequest(service, endpoint, nil), nil)
	}
	for call("weather", "Weather.Now") != hystrix.ErrCircuitOpen { // hystrix counts in the background
	}
	fmt.Println(call("weather", "Weather.Now"))
	fmt.Println(call("greeter", "Greeter.Hello"))
	// Output:
	// hystrix: circuit open
	// <nil>
}
