package breaker

import (
	"net/http"

	"github.com/afex/hystrix-go/hystrix"
)

// Stream serves hystrix's event stream, once a second, for dashboards that read it. It works
// only while somebody reads.
func Stream(w http.ResponseWriter, r *http.Request) {
	h := hystrix.NewStreamHandler()
	h.Start()
	defer h.Stop()
	h.ServeHTTP(w, r)
}
