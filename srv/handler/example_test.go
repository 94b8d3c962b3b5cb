package handler_test

import (
	"context"
	"fmt"

	"github.com/micro/go-micro/errors"

	"github.com/gomicroexample/basis/proto"
	"github.com/gomicroexample/basis/srv/handler"
)

func ExampleBasis_Hello() {
	b := &handler.Basis{ID: "go.micro.srv.basis"}
	for _, name := range []string{"John", ""} {
		rsp := new(proto.Response)
		if err := b.Hello(context.Background(), &proto.Request{Name: name}, rsp); err != nil {
			fmt.Println(errors.Parse(err.Error()).Detail)
			continue
		}
		fmt.Println(rsp.GetMsg())
	}
	// Output:
	// Hello John
	// name is empty; want 1 to 256 bytes
}
