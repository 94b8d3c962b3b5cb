package failure_test

import (
	"fmt"

	"github.com/afex/hystrix-go/hystrix"
	"github.com/micro/go-micro/errors"

	"github.com/gomicroexample/basis/client/failure"
)

func ExampleDescribe() {
	err := errors.BadRequest("greeter", "name is empty")
	fmt.Println(err)
	fmt.Println(failure.Describe(err))
	fmt.Println(failure.Kind(err))
	fmt.Println(failure.Describe(hystrix.ErrCircuitOpen))
	// Output:
	// {"id":"greeter","code":400,"detail":"name is empty","status":"Bad Request"}
	// 400 Bad Request: name is empty (greeter)
	// 400 Bad Request
	// hystrix: circuit open
}
