package timeline_test

import (
	"fmt"
	"time"

	"github.com/gomicroexample/basis/dev/internal/timeline"
)

func ExampleDraw() {
	start := time.Now()
	fmt.Print(timeline.Draw([]timeline.Span{
		{Service: "client", Operation: "call", Start: start, Duration: 4 * time.Millisecond},
		{Service: "srv", Operation: "Hello", Depth: 1, Start: start.Add(time.Millisecond), Duration: 2 * time.Millisecond},
	}, 60))
	// Output:
	// service  span     start  took
	// client   call        0s   4ms  ██████████████████████
	// srv        Hello    1ms   2ms       ███████████
}
