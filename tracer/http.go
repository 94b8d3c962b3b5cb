package tracer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	jaeger "github.com/uber/jaeger-client-go"
	jaegercfg "github.com/uber/jaeger-client-go/config"
	jaegerhttp "github.com/uber/jaeger-client-go/transport"
)

// fetchTimeout is the timeout of one request for a sampling strategy, as in jaeger-client-go.
const fetchTimeout = 10 * time.Second

// collector is a transport that sends spans to JAEGER_ENDPOINT over HTTP.
type collector struct {
	*jaegerhttp.HTTPTransport
	proxied proxyTransport
}

func newCollector(cfg *jaegercfg.ReporterConfig) jaeger.Transport {
	proxied := newProxyTransport()
	options := []jaegerhttp.HTTPOption{jaegerhttp.HTTPRoundTripper(proxied)}
	if cfg.User != "" {
		options = append(options, jaegerhttp.HTTPBasicAuth(cfg.User, cfg.Password))
	}
	return &collector{jaegerhttp.NewHTTPTransport(cfg.CollectorEndpoint, options...), proxied}
}

// Close closes the idle connections.
func (c *collector) Close() error {
	c.proxied.CloseIdleConnections()
	return nil
}

// fetcher gets the sampling strategy of a service, for the remote sampler.
type fetcher struct {
	endpoint string
	client   *http.Client
	// closing ends when the tracer closes. This cancels Fetch, so that the tracer's Close does not
	// wait for Fetch.
	closing context.Context
}

// newFetcher returns the fetcher of a tracer that sends spans to addr.
func newFetcher(closing context.Context, addr string) (*fetcher, error) {
	endpoint, named, err := samplingEndpoint(addr)
	if err != nil {
		return nil, err
	}
	proxied := newProxyTransport()
	if !named { // the endpoint is on the host of addr, and spans reach this host without a proxy
		proxied.Proxy = nil
	}
	context.AfterFunc(closing, proxied.CloseIdleConnections)
	return &fetcher{endpoint, &http.Client{Transport: proxied, Timeout: fetchTimeout}, closing}, nil
}

// Fetch returns the response to a request for the strategy of service.
func (f *fetcher) Fetch(service string) ([]byte, error) {
	req, err := http.NewRequestWithContext(f.closing, http.MethodGet, f.endpoint+"?"+url.Values{"service": {service}}.Encode(), nil)
	if err != nil {
		return nil, err
	}
	rsp, err := f.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer rsp.Body.Close()
	body, err := io.ReadAll(rsp.Body)
	if err == nil && rsp.StatusCode >= http.StatusBadRequest {
		err = fmt.Errorf("GET %s: %s: %s", req.URL.Redacted(), rsp.Status, strings.TrimSpace(string(body)))
	}
	return body, err
}

// proxyTransport sends requests through the proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY select,
// as net/http does by default. If a request through a proxy fails, the error names the proxy and
// the variable that sets the proxy.
type proxyTransport struct{ *http.Transport }

func newProxyTransport() proxyTransport {
	return proxyTransport{http.DefaultTransport.(*http.Transport).Clone()}
}

// RoundTrip sends one request. If the request goes through a proxy, RoundTrip returns an error for
// a status of 400 or more.
func (t proxyTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	rsp, err := t.Transport.RoundTrip(req)
	if t.Proxy == nil || err == nil && rsp.StatusCode < http.StatusBadRequest {
		return rsp, err
	}
	proxy, _ := t.Proxy(req)
	if proxy == nil {
		return rsp, err
	}
	if err == nil { // the status may be the proxy's or the server's
		rsp.Body.Close()
		err = errors.New(rsp.Status)
	}
	return nil, fmt.Errorf("through the proxy %s://%s of %s: %w; to connect without it, add %s to NO_PROXY",
		proxy.Scheme, proxy.Host, proxyVariable(req), err, req.URL.Hostname())
}

// proxyVariable returns the name of the variable that sets the proxy for a request.
func proxyVariable(req *http.Request) string {
	upper := strings.ToUpper(req.URL.Scheme) + "_PROXY"
	if os.Getenv(upper) == "" {
		return strings.ToLower(upper)
	}
	return upper
}
