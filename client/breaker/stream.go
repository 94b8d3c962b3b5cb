package breaker

import (
	"net/http"
	"sync"

	"github.com/afex/hystrix-go/hystrix"
)

// dashboards counts the readers of hystrix's event stream, and holds the handler that serves them.
// The handler covers all circuits of the process. All readers share one handler, because two
// handlers must not read the durations of a circuit at the same time.
var dashboards struct {
	sync.Mutex
	readers int
	handler *hystrix.StreamHandler // nil if there are no readers
}

// Stream serves hystrix's event stream, for dashboards. Once per second, it sends the counts and
// the state of each circuit of the process. The counts are collected only while the stream has
// readers.
func Stream(w http.ResponseWriter, r *http.Request) {
	h := join()
	defer leave()
	h.ServeHTTP(w, r)
}

func join() *hystrix.StreamHandler {
	dashboards.Lock()
	defer dashboards.Unlock()
	if dashboards.readers == 0 {
		dashboards.handler = hystrix.NewStreamHandler()
		// The new handler first collects after 1 s. By then, the previous handler has ended.
		dashboards.handler.Start()
	}
	dashboards.readers++
	return dashboards.handler
}

func leave() {
	dashboards.Lock()
	defer dashboards.Unlock()
	dashboards.readers--
	if dashboards.readers == 0 {
		dashboards.handler.Stop()
		dashboards.handler = nil
	}
}
