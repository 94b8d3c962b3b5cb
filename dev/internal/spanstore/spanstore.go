// Package spanstore replaces Jaeger in the demo if Jaeger is not installed. It receives spans as
// Jaeger does, keeps them in memory, and serves Jaeger's own UI. It implements the part of Jaeger's
// JSON API that the UI's pages for search, traces and dependencies call.
package spanstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	pages "github.com/tonistiigi/jaeger-ui-rest"

	"github.com/gomicroexample/basis/dev/internal/jaegerui"
)

// maxSize is the maximum total size of the datagrams of all stored spans, in bytes. In memory, the
// pair's spans take eight times as many bytes as in their datagrams. If new spans exceed this
// limit, the oldest traces are evicted.
const maxSize = 10 << 20

// menu is an entry in the UI's menu that says where the traces come from.
var menu = pages.Menu{
	Label: "The demo's memory",
	Items: []pages.MenuItem{
		{Label: "Jaeger's UI over the demo's memory, not over Jaeger", URL: "https://www.jaegertracing.io/docs/2.13/architecture/"},
		{Label: `The real Jaeger: "make tools", then "make demo"`, URL: "https://www.jaegertracing.io/"},
	},
}

// Server receives spans and serves the UI. Start returns a running server, and Close stops it.
type Server struct {
	Addr string // host:port that receives spans over UDP
	URL  string // URL of the UI and the API, without a slash at the end

	spans *net.UDPConn
	ui    *http.Server
	done  sync.WaitGroup
}

// Start starts a server on 127.0.0.1. ui is the TCP port for Jaeger's UI and API. spans is the UDP
// port for spans in compact Thrift. If a port is 0, or another program uses it, the server listens
// on a free port instead. The fields URL and Addr of the server contain the ports that it listens
// on.
func Start(ui, spans int) (*Server, error) {
	conn, err := portOr(spans, func(addr string) (net.PacketConn, error) { return net.ListenPacket("udp4", addr) })
	if err != nil {
		return nil, fmt.Errorf("listening for spans: %w", err)
	}
	listener, err := portOr(ui, func(addr string) (net.Listener, error) { return net.Listen("tcp4", addr) })
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("listening for browsers: %w", err)
	}
	st := newStore(maxSize)
	s := &Server{
		Addr:  conn.LocalAddr().String(),
		URL:   "http://" + listener.Addr().String(),
		spans: conn.(*net.UDPConn),
		ui:    &http.Server{Handler: newHandler(st, jaegerui.Handler(menu)), ReadHeaderTimeout: 10 * time.Second},
	}
	s.done.Go(func() { receive(s.spans, st) })
	s.done.Go(func() {
		if err := s.ui.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Printf("the UI at %s stopped: %v", s.URL, err)
		}
	})
	return s, nil
}

// portOr calls listen with the given port of 127.0.0.1. If listen fails, portOr calls listen again,
// with a free port.
func portOr[T any](port int, listen func(addr string) (T, error)) (T, error) {
	l, err := listen(net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return listen("127.0.0.1:0")
	}
	return l, nil
}

// Close stops the server and discards its spans. It waits up to a second for requests in flight.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := cmp.Or(s.ui.Shutdown(ctx), s.ui.Close())
	err = cmp.Or(s.spans.Close(), err)
	s.done.Wait()
	return err
}
