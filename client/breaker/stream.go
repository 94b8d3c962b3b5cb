package breaker

import (
	"net/http"
	"sync"

	"github.com/afex/hystrix-go/hystrix"
)

// dashboards are the readers of hystrix's event stream. Hystrix's circuits are the process's, so
// one handler has them all; and it has to be one, since the durations of a circuit must not be
// read by two handlers at once.
var dashboards struct {
	sync.Mutex
	readers int
	handler *hystrix.StreamHandler // nil while nobody reads
}

// Stream serves hystrix's event stream: an event a second for each circuit of the process, for
// dashboards that read it. It collects them only while somebody reads.
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
		dashboards.handler.Start() // collects for the first time a second later, when no other one does any more
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
