package consul

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/micro/go-micro/registry"
	"github.com/stretchr/testify/require"
)

// cluster is a set of agents. A test can stop and start each agent. The cluster records the nodes
// that are registered at each agent.
type cluster struct {
	mu         sync.Mutex
	down       map[string]error    // the errors of the agents that are down, by host
	registered map[string][]string // the IDs of nodes, by host
}

func newCluster() *cluster {
	return &cluster{down: map[string]error{}, registered: map[string][]string{}}
}

func (c *cluster) RoundTrip(req *http.Request) (*http.Response, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.down[req.URL.Host]; err != nil {
		return nil, err
	}
	path := req.URL.Path
	switch {
	case path == "/v1/agent/service/register":
		c.registered[req.URL.Host] = []string{"n"}
	case strings.HasPrefix(path, "/v1/agent/service/deregister/"):
		if c.registered[req.URL.Host] == nil {
			return refusal(404, "Unknown service ID"), nil
		}
		delete(c.registered, req.URL.Host)
	case strings.HasPrefix(path, "/v1/agent/check/pass/"):
		if c.registered[req.URL.Host] == nil {
			return refusal(404, "Unknown check ID"), nil
		}
	case strings.HasPrefix(path, "/v1/health/service/"):
		return answer(1, req.URL.Host), nil
	}
	return refusal(200, "null"), nil
}

// set makes all requests to host fail with err. If err is nil, the agent is up again.
func (c *cluster) set(host string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down[host] = err
}

// where returns the hosts of the agents at which the node is registered.
func (c *cluster) where() (hosts []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for host := range c.registered {
		hosts = append(hosts, host)
	}
	return hosts
}

var errRefused = &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}

func TestRegistrationAndLookupsMoveToTheNextAgentAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		r := onTransport(t, c.RoundTrip, "a:1", "b:1")
		s := &registry.Service{Name: "svc", Nodes: []*registry.Node{{Id: "n", Address: "192.0.2.1:1"}}}
		get := func() []string {
			services, err := r.GetService("svc")
			require.NoError(t, err)
			return ids(services)
		}
		register := func() { require.NoError(t, r.Register(s, registry.RegisterTTL(time.Minute))) }

		// Both agents are down, and then one agent starts.
		c.set("a:1", errRefused)
		c.set("b:1", errRefused)
		require.Error(t, r.Register(s))
		_, err := r.GetService("svc")
		require.Error(t, err)
		c.set("b:1", nil)
		register()
		require.Equal(t, []string{"b:1"}, get())
		require.Equal(t, []string{"b:1"}, c.where())

		c.set("a:1", nil)
		time.Sleep(skipTime)
		register()
		require.Equal(t, []string{"a:1"}, get())
		require.ElementsMatch(t, []string{"a:1", "b:1"}, c.where(), "the catalog may not have the node from a yet")
		register()
		require.Equal(t, []string{"a:1"}, c.where())

		c.set("a:1", errRefused) // the agent stops, and keeps its registrations
		register()
		require.Equal(t, []string{"b:1"}, get())
		c.set("a:1", nil)
		require.ElementsMatch(t, []string{"a:1", "b:1"}, c.where())
		require.NoError(t, r.Deregister(s))
		require.Empty(t, c.where())
	})
}

func TestDeregisteringWithoutAllAgents(t *testing.T) {
	c := newCluster()
	r := onTransport(t, c.RoundTrip, "a:1", "b:1")
	s := &registry.Service{Name: "svc", Nodes: []*registry.Node{{Id: "n", Address: "192.0.2.1:1"}}}
	require.NoError(t, r.Register(s))
	c.set("a:1", errRefused)
	require.ErrorContains(t, r.Deregister(s), "connection refused")
	require.NoError(t, r.Register(s))
	require.NoError(t, r.Deregister(s), "Consul itself removes the nodes of an agent that is gone")
	require.Equal(t, []string{"a:1"}, c.where())
	require.Error(t, r.Deregister(&registry.Service{Name: "svc"}), "it has no node")
}

// The registry queries the next agent if the first agent is down, if it has lost its servers, or if
// another program is at its address.
func TestTheNextAgentIsAskedInsteadOf(t *testing.T) {
	for name, answerOfA := range map[string]func() (*http.Response, error){
		"no agent":              func() (*http.Response, error) { return nil, errRefused },
		"an agent without lead": func() (*http.Response, error) { return refusal(500, "No cluster leader"), nil },
		"a busy one":            func() (*http.Response, error) { return refusal(429, "rate limit exceeded"), nil },
		"a gateway":             func() (*http.Response, error) { return refusal(502, "Bad Gateway"), nil },
		"no JSON":               func() (*http.Response, error) { return refusal(200, "<html>"), nil },
		"other JSON":            func() (*http.Response, error) { return refusal(200, `{"a": 1}`), nil },
	} {
		t.Run(name, func(t *testing.T) {
			r := onTransport(t, func(req *http.Request) (*http.Response, error) {
				if req.URL.Host == "a:1" {
					return answerOfA()
				}
				return answer(1, "n"), nil
			}, "a:1", "b:1")
			services, err := r.GetService("svc")
			require.NoError(t, err)
			require.Equal(t, []string{"n"}, ids(services))
			require.Equal(t, "consul at b:1", Place(r), "the agent in use")
			require.Equal(t, []string{"a:1", "b:1"}, Addresses(r))
		})
	}
}

// If the first agent hangs, the registry queries the next agent within firstAnswerTimeout. The
// default timeouts of a client are longer than this.
func TestTheNextAgentIsAskedSoonInsteadOfOneThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := onTransport(t, func(req *http.Request) (*http.Response, error) {
			if req.URL.Host == "a:1" {
				<-req.Context().Done()
				return nil, req.Context().Err()
			}
			return answer(1, "n"), nil
		}, "a:1", "b:1")
		start := time.Now()
		_, err := r.GetService("svc")
		require.NoError(t, err)
		require.LessOrEqual(t, time.Since(start), firstAnswerTimeout)
		_, err = r.GetService("svc")
		require.NoError(t, err)
		require.LessOrEqual(t, time.Since(start), firstAnswerTimeout)
	})
}

// A blocking query also times out if its agent hangs.
func TestAHangingAgentIsNotFollowedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hangs atomic.Bool
		r := onTransport(t, func(req *http.Request) (*http.Response, error) {
			if req.URL.Host == "a:1" && hangs.Load() {
				<-req.Context().Done()
				return nil, req.Context().Err()
			}
			if req.URL.Query().Get("index") == "1" {
				hangs.Store(true)
				time.Sleep(time.Second)
			}
			return answer(1, req.URL.Host), nil
		}, "a:1", "b:1")
		changes, stop := watch(t, r)
		time.Sleep(time.Minute)
		require.Contains(t, changes(), "update b:1")
		stop()
	})
}

func TestErrorsNameTheAgentsThatWereAsked(t *testing.T) {
	c := newCluster()
	r := onTransport(t, c.RoundTrip, "a", "http://b:1")
	c.set("a:8500", errRefused)
	c.set("b:1", errRefused)
	_, err := r.GetService("svc")
	require.EqualError(t, Explain(r, err), "no Consul agent at a:8500: dial tcp: connection refused; no Consul agent at b:1: dial tcp: connection refused; "+
		`start one with "consul agent -dev", name another with --registry_address, or use --registry=mdns`)
	require.NotContains(t, err.Error(), "\n")
	c.set("b:1", errors.New("EOF"))
	_, err = r.GetService("svc")
	require.EqualError(t, Explain(r, err), "no Consul agent at a:8500: dial tcp: connection refused; cannot ask consul at b:1: EOF; "+
		"see its log, or name another agent with --registry_address")

	denying := onTransport(t, func(req *http.Request) (*http.Response, error) {
		if req.URL.Host == "a:1" {
			return nil, errRefused
		}
		return refusal(403, "Permission denied: token lacks permission"), nil
	}, "a:1", "b:1")
	_, err = denying.GetService("svc")
	require.ErrorIs(t, err, ErrDenied)
	require.ErrorIs(t, Explain(denying, err), ErrDenied)
	require.EqualError(t, Explain(denying, err), "no Consul agent at a:1: dial tcp: connection refused; cannot ask consul at b:1: "+
		"permission denied by Consul: token lacks permission; set CONSUL_HTTP_TOKEN to a token that allows this")
}

func TestCheckAddress(t *testing.T) {
	for _, addr := range []string{
		"127.0.0.1:8500", "127.0.0.1", "consul", "consul-1.example_2.com:1", ":8500", "::1", "[::1]", "[::1]:65535", "fe80::1%eth0",
		"http://consul", "https://consul:8501", "https://[::1]:1", "unix:///run/consul.sock",
	} {
		require.NoError(t, CheckAddress(addr), addr)
	}
	for addr, want := range map[string]string{
		"":                        "is empty; want host:port",
		":":                       `port "" is not a number from 1 to 65535; want host:port`,
		"consul:":                 `is consul:: port "" is not a number from 1 to 65535; want host:port`,
		"http://consul:":          `port "" is not`,
		"consul:0":                `port "0" is not`,
		"consul:65536":            `port "65536" is not`,
		"consul:-1":               `port "-1" is not`,
		"consul:http":             `port "http" is not`,
		"consul:8500/v1":          "is consul:8500/v1; want host:port without a path",
		"consul/":                 "want host:port without a path",
		"https://consul:8500/a/b": "want host:port without a path",
		"[::1":                    `its brackets do not match`,
		"a:b:c":                   `is neither an IP address nor a host name`,
		"two words":               `"two words" is neither`,
		"consul?x":                `"consul?x" is neither`,
		"tcp://127.0.0.1:1":       "is tcp://127.0.0.1:1; want host:port",
		"http://":                 "is http://; want host:port",
		"unix://":                 "is unix://; want host:port",
		"://x":                    "is ://x; want host:port",
	} {
		require.ErrorContains(t, CheckAddress(addr), want, addr)
		require.NotPanics(t, func() { // Init must not panic either
			r := newRegistry(t)
			err := r.Init(registry.Addrs("127.0.0.1:1", addr))
			require.Equal(t, addr == "", err == nil, addr)
		})
	}
}

func TestWhichRegistriesAreAtAnAddress(t *testing.T) {
	for name, want := range map[string]string{
		"consul": "consul at 127.0.0.1:1", "mdns": "mdns", "memory": "memory", "gossip": "gossip at 127.0.0.1:1",
	} {
		require.Equal(t, want, Place(named{name}))
	}
}

// named is a registry without nodes. name is the result of its String.
type named struct{ name string }

func (n named) String() string            { return n.name }
func (n named) Options() registry.Options { return registry.Options{Addrs: []string{"127.0.0.1:1"}} }

func (named) Init(...registry.Option) error                                { return nil }
func (named) Register(*registry.Service, ...registry.RegisterOption) error { return nil }
func (named) Deregister(*registry.Service) error                           { return nil }
func (named) GetService(string) ([]*registry.Service, error)               { return nil, nil }
func (named) ListServices() ([]*registry.Service, error)                   { return nil, nil }
func (named) Watch(...registry.WatchOption) (registry.Watcher, error)      { return nil, nil }

// denyingAgent is an agent that accepts one token and denies all other requests. It lists one node,
// without tags.
type denyingAgent struct {
	*httptest.Server
	accepted atomic.Pointer[string] // the accepted token
	denials  atomic.Int64           // the number of denied requests
}

// newDenyingAgent starts an agent that accepts token, and sets CONSUL_HTTP_ADDR to its address.
func newDenyingAgent(t *testing.T, token string) *denyingAgent {
	t.Helper()
	a := new(denyingAgent)
	a.accepted.Store(&token)
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("X-Consul-Token") != *a.accepted.Load() {
			a.denials.Add(1)
			http.Error(w, "ACL not found", http.StatusForbidden)
			return
		}
		var body struct{ ID string }
		if req.URL.Path == "/v1/agent/service/register" && (json.NewDecoder(req.Body).Decode(&body) != nil || body.ID != "a") {
			http.Error(w, "no service", http.StatusBadRequest)
			return
		}
		if strings.HasPrefix(req.URL.Path, "/v1/health/service/") {
			w.Header().Set("X-Consul-Index", "1")
			if req.URL.Query().Has("index") {
				<-req.Context().Done()
				return
			}
			fmt.Fprint(w, `[{"Service": {"ID": "a", "Service": "svc", "Address": "192.0.2.1", "Port": 4711}}]`)
			return
		}
		fmt.Fprint(w, "{}")
	}))
	t.Cleanup(a.Close)
	t.Setenv("CONSUL_HTTP_ADDR", a.Listener.Addr().String())
	return a
}

func TestTheTokenIsReadAgainAfterADenial(t *testing.T) {
	s := &registry.Service{Name: "svc", Nodes: []*registry.Node{{Id: "a", Address: "192.0.2.1:1"}}}
	for name, request := range map[string]func(r registry.Registry) error{
		"register":   func(r registry.Registry) error { return r.Register(s, registry.RegisterTTL(time.Minute)) },
		"deregister": func(r registry.Registry) error { return r.Deregister(s) },
		"look up":    func(r registry.Registry) error { _, err := r.GetService("svc"); return err },
		"list":       func(r registry.Registry) error { _, err := r.ListServices(); return err },
		"watch": func(r registry.Registry) error {
			w, err := r.Watch(registry.WatchService("svc"))
			if err != nil {
				return err
			}
			defer w.Stop()
			_, err = w.Next()
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "token")
			write := func(token string) { require.NoError(t, os.WriteFile(path, []byte(token+"\n"), 0o600)) }
			write("one")
			t.Setenv("CONSUL_HTTP_TOKEN_FILE", path)
			a := newDenyingAgent(t, "one")
			r := newRegistry(t)
			require.NoError(t, request(r))
			require.Zero(t, a.denials.Load())

			// The registry does not read the file while Consul accepts the token.
			require.NoError(t, os.Remove(path))
			require.NoError(t, request(r))

			two := "two"
			a.accepted.Store(&two)
			if name != "watch" && name != "look up" { // a lookup returns the last known nodes; Next retries
				require.ErrorIs(t, request(r), ErrDenied)
				require.ErrorContains(t, request(r), "ACL not found; put a token that allows this into "+path+" (CONSUL_HTTP_TOKEN_FILE)")
			}
			write("")
			if name != "watch" && name != "look up" {
				require.ErrorIs(t, request(r), ErrDenied)
			}
			write("two")
			before := a.denials.Load()
			require.NoError(t, request(r))
			require.Equal(t, before+1, a.denials.Load(), "the first request is repeated")
			require.NoError(t, request(r))
			require.Equal(t, before+1, a.denials.Load(), "the later requests have the new token")

			// Consul denies the first request of a new registry.
			r = newRegistry(t)
			write("three")
			three := "three"
			a.accepted.Store(&three)
			require.NoError(t, request(r))
		})
	}
}

// If a token does not allow a lookup, Consul still responds with 200, but leaves nodes out of the
// response.
func TestALookupIsRepeatedWithTheNewToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(path, []byte("one"), 0o600))
	t.Setenv("CONSUL_HTTP_TOKEN_FILE", path)
	r := onTransport(t, func(req *http.Request) (*http.Response, error) {
		switch {
		case req.Header.Get("X-Consul-Token") == "two":
			return answer(1, "a"), nil
		case strings.HasPrefix(req.URL.Path, "/v1/agent/"):
			return refusal(403, "token lacks permission"), nil
		}
		return answer(1), nil
	})
	_, err := r.GetService("svc")
	require.ErrorIs(t, err, ErrDenied)
	require.NoError(t, os.WriteFile(path, []byte("two"), 0o600))
	services, err := r.GetService("svc")
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, ids(services))
}

// A few seconds after an agent has died, Consul lists the agent's nodes as critical. The next
// renewal of a node's registration may come after this. So a node must move to another agent
// without waiting for the next renewal.
func TestANodeMovesAsSoonAsItsAgentIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		var asked atomic.Int64
		r := onTransport(t, func(req *http.Request) (*http.Response, error) {
			if req.URL.Path != "/v1/agent/service/n" {
				return c.RoundTrip(req)
			}
			asked.Add(1)
			if req.URL.Query().Get("hash") == "h" {
				if asked.Load()%10 == 0 { // like a proxy that ends requests that take long
					return nil, errors.New("EOF")
				}
				for i := 0; i < 300 && req.Context().Err() == nil; i++ {
					if _, err := c.RoundTrip(req); err != nil {
						return nil, err
					}
					time.Sleep(100 * time.Millisecond)
				}
			}
			rsp, err := c.RoundTrip(req)
			if err == nil {
				rsp.Header.Set("X-Consul-ContentHash", "h")
			}
			return rsp, err
		}, "a:1", "b:1")
		s := &registry.Service{Name: "svc", Nodes: []*registry.Node{{Id: "n", Address: "192.0.2.1:1"}}}
		text := logged(t, func() {
			require.NoError(t, r.Register(s, registry.RegisterTTL(time.Hour)))
			time.Sleep(time.Hour)
			require.Equal(t, []string{"a:1"}, c.where())
			require.LessOrEqual(t, asked.Load(), int64(3600/30*5/4))
		})
		require.Empty(t, text)
		text = logged(t, func() {
			c.set("a:1", errRefused)
			time.Sleep(time.Second)
			synctest.Wait()
			require.ElementsMatch(t, []string{"a:1", "b:1"}, c.where())
			c.set("a:1", nil)
			time.Sleep(skipTime)
			for range 2 {
				require.NoError(t, r.Register(s, registry.RegisterTTL(time.Hour)))
			}
			require.Equal(t, []string{"a:1"}, c.where())
		})
		require.Equal(t, 2, strings.Count(text, "\n"), text)
		require.Contains(t, text, "Registered svc in consul at b:1; of 2 agents it is the first that answers")
		require.Contains(t, text, "Registered svc in consul at a:1; of 2 agents it is the first that answers")

		require.NoError(t, r.Deregister(s)) // ends the watch of the agent
		synctest.Wait()
		before := asked.Load()
		c.set("a:1", errRefused)
		time.Sleep(time.Hour)
		require.Equal(t, before, asked.Load())
		require.Empty(t, c.where())
	})
}

// Whatever the agent responds, the watch of the agent must not become a busy loop.
func TestWatchingAnAgentDoesNotSpin(t *testing.T) {
	for name, test := range map[string]struct {
		answer func() (*http.Response, error)
		atMost int64 // requests in a minute
	}{
		"at once":  {func() (*http.Response, error) { return refusal(200, "{}"), nil }, 63},
		"no JSON":  {func() (*http.Response, error) { return refusal(200, "<html>"), nil }, 3},
		"an error": {func() (*http.Response, error) { return refusal(500, "No cluster leader"), nil }, 3},
		"a denial": {func() (*http.Response, error) { return refusal(403, "Permission denied"), nil }, 3},
		"nothing":  {func() (*http.Response, error) { return nil, errors.New("EOF") }, 3 * 61},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asked atomic.Int64
				r := onTransport(t, func(req *http.Request) (*http.Response, error) {
					asked.Add(1)
					if req.URL.Path == "/v1/agent/service/n" {
						return test.answer()
					}
					return refusal(200, "null"), nil
				}, "a:1", "b:1")
				s := &registry.Service{Name: "svc", Nodes: []*registry.Node{{Id: "n", Address: "192.0.2.1:1"}}}
				logged(t, func() {
					require.NoError(t, r.Register(s))
					time.Sleep(time.Minute)
				})
				require.LessOrEqual(t, asked.Load(), test.atMost)
				require.NoError(t, r.Deregister(s))
			})
		})
	}
}

func TestARepeatedRequestHasItsBody(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
	file, err := openTokenFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, []byte("new"), 0o600))
	var sent []string
	next := transport(func(req *http.Request) (*http.Response, error) {
		body, err := io.ReadAll(req.Body)
		require.NoError(t, err)
		sent = append(sent, req.Header.Get("X-Consul-Token")+" "+string(body))
		return refusal(http.StatusForbidden, "ACL not found"), nil
	})
	req, err := http.NewRequest(http.MethodPut, "http://a:1/v1/agent/service/register", strings.NewReader("body"))
	require.NoError(t, err)
	rsp, err := tokenTransport{next, file}.RoundTrip(req)
	require.NoError(t, err)
	require.Equal(t, http.StatusForbidden, rsp.StatusCode)
	require.Equal(t, []string{"old body", "new body"}, sent)
	require.Empty(t, req.Header, "a transport does not change its request")
}
