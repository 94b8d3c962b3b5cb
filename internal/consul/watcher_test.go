package consul

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/micro/go-micro/registry"
	"github.com/stretchr/testify/require"
)

// transport is a fake Consul that needs no network, for tests with synctest.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// answer returns a response that lists nodes of the service svc. The response has this index. If
// index is 0, the response has no index.
func answer(index uint64, ids ...string) *http.Response {
	var entries []string
	for _, id := range ids {
		entries = append(entries, fmt.Sprintf(`{"Service": {"ID": %q, "Service": "svc", "Address": "192.0.2.1", "Port": 4711}}`, id))
	}
	rsp := refusal(http.StatusOK, "["+strings.Join(entries, ",")+"]")
	if index > 0 {
		rsp.Header.Set("X-Consul-Index", fmt.Sprint(index))
	}
	return rsp
}

// refusal returns a response with this status and body.
func refusal(status int, text string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(text))}
}

// onTransport returns a registry that sends its requests to f. addresses are the addresses of the
// registry's agents.
func onTransport(t *testing.T, f transport, addresses ...string) *consulRegistry {
	t.Helper()
	r := newRegistry(t).(*consulRegistry)
	r.config.HttpClient.Transport = f
	require.NoError(t, r.Init(registry.Addrs(addresses...)))
	return r
}

// watch starts a watcher of svc, and calls Next until stop is called. changes returns the changes
// so far.
func watch(t *testing.T, r registry.Registry) (changes func() []string, stop func()) {
	t.Helper()
	w, err := r.Watch(registry.WatchService("svc"))
	require.NoError(t, err)
	var mu sync.Mutex
	var all []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			result, err := w.Next()
			if err == registry.ErrWatcherStopped {
				return
			}
			if err == nil {
				mu.Lock()
				all = append(all, result.Action+" "+strings.Join(ids([]*registry.Service{result.Service}), " "))
				mu.Unlock()
			}
		}
	}()
	changes = func() []string {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
	return changes, func() {
		w.Stop()
		<-done
	}
}

// last returns the last n items of changes.
func last(changes []string, n int) []string { return changes[max(0, len(changes)-n):] }

// logged runs f and returns the text that is logged while f runs.
func logged(t *testing.T, f func()) string {
	t.Helper()
	var text strings.Builder
	var mu sync.Mutex
	log.SetOutput(writerFunc(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return text.Write(b)
	}))
	defer log.SetOutput(os.Stderr)
	f()
	mu.Lock()
	defer mu.Unlock()
	return text.String()
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestWithoutAnIndexTheWatcherPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		var nodes atomic.Pointer[[]string]
		nodes.Store(&[]string{"a"})
		r := onTransport(t, func(*http.Request) (*http.Response, error) {
			asked.Add(1)
			return answer(0, *nodes.Load()...), nil
		})
		text := logged(t, func() {
			changes, stop := watch(t, r)
			time.Sleep(time.Minute)
			require.Contains(t, changes(), "update a")
			require.LessOrEqual(t, asked.Load(), int64(2*(60/5+1)), "a query and a lookup each time")

			nodes.Store(&[]string{"b"})
			time.Sleep(pollInterval)
			require.Equal(t, []string{"delete a", "update b"}, last(changes(), 2))

			// Without an index, the watcher cannot know whether the nodes are gone or Consul has
			// lost its catalog. So it keeps the nodes for recoverTime.
			nodes.Store(new([]string))
			time.Sleep(recoverTime - 2*pollInterval)
			require.Equal(t, []string{"update b"}, last(changes(), 1))
			time.Sleep(5 * pollInterval)
			require.Equal(t, []string{"delete b"}, last(changes(), 1))
			stop()
		})
		require.Equal(t, 1, strings.Count(text, "\n"), text)
		require.Contains(t, text, "consul at 127.0.0.1:8500 does not hold queries until something changes; is there a proxy before it that drops X-Consul-Index? Asking every 5s instead")
	})
}

// Whatever Consul responds, and even if it responds at once, the watcher must not become a busy
// loop.
func TestNoAnswerMakesTheWatcherSpin(t *testing.T) {
	var n atomic.Uint64
	for name, test := range map[string]struct {
		answer func(asked string) (*http.Response, error)
		atMost int64 // requests in a minute
	}{
		"the index stays, at once":     {func(string) (*http.Response, error) { return answer(100, "a"), nil }, 20},
		"the index advances, at once":  {func(string) (*http.Response, error) { return answer(n.Add(1), "a"), nil }, 2 * (60 + queryBurst + 1)},
		"the index goes to and fro":    {func(string) (*http.Response, error) { return answer(100+n.Add(1)%2, "a"), nil }, 2 * (60 + queryBurst + 1)},
		"the index is there at times":  {func(string) (*http.Response, error) { return answer(100*(n.Add(1)%2), "a"), nil }, 2 * (60 + queryBurst + 1)},
		"the index goes to and from 0": {func(string) (*http.Response, error) { return answer(100*(n.Add(1)/2%2), "a"), nil }, 2 * (60 + queryBurst + 1)},
		"no index and no node":         {func(string) (*http.Response, error) { return answer(0), nil }, 4 * 14},
		"the index advances, no node":  {func(string) (*http.Response, error) { return answer(n.Add(1)), nil }, 4 * (60 + queryBurst + 1)},
		"an error":                     {func(string) (*http.Response, error) { return refusal(500, "No cluster leader"), nil }, 24},
		"a denial":                     {func(string) (*http.Response, error) { return refusal(403, "Permission denied"), nil }, 24},
		"no JSON":                      {func(string) (*http.Response, error) { return refusal(200, "<html>"), nil }, 24},
		"nobody":                       {func(string) (*http.Response, error) { return nil, errors.New("connection refused") }, 24},
		"an index that is none": {func(string) (*http.Response, error) {
			rsp := answer(0, "a")
			rsp.Header.Set("X-Consul-Index", "-1")
			return rsp, nil
		}, 26},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asked atomic.Int64
				r := onTransport(t, func(req *http.Request) (*http.Response, error) {
					asked.Add(1)
					return test.answer(req.URL.Query().Get("index"))
				})
				logged(t, func() {
					_, stop := watch(t, r)
					time.Sleep(time.Minute)
					stop()
				})
				require.LessOrEqual(t, asked.Load(), test.atMost)
				require.NotZero(t, asked.Load())
			})
		})
	}
}

func TestAnOutageIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var denied atomic.Bool
		r := onTransport(t, func(req *http.Request) (*http.Response, error) {
			if denied.Load() {
				return refusal(403, "ACL not found"), nil
			}
			if req.URL.Query().Get("index") == "100" {
				time.Sleep(waitTime)
			}
			return answer(100, "a"), nil
		})
		text := logged(t, func() {
			_, stop := watch(t, r)
			time.Sleep(time.Second)
			denied.Store(true)
			time.Sleep(5 * time.Minute)
			services, err := r.GetService("svc")
			require.NoError(t, err)
			require.Equal(t, []string{"a"}, ids(services))
			denied.Store(false)
			time.Sleep(time.Minute)
			stop()
		})
		lines := strings.Split(strings.TrimSpace(text), "\n")
		require.Len(t, lines, 2, text)
		require.Contains(t, lines[0], "Cannot follow svc: cannot ask consul at 127.0.0.1:8500: permission denied by Consul: ACL not found; set CONSUL_HTTP_TOKEN to a token that allows this. Its last known nodes stay in use")
		require.Contains(t, lines[1], "Following svc again, in consul at 127.0.0.1:8500")
	})
}

// While no node is known, a lookup returns the error. So the watcher does not log the error.
func TestAnOutageWithoutKnownNodesIsNotLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := onTransport(t, func(*http.Request) (*http.Response, error) { return refusal(403, "ACL not found"), nil })
		text := logged(t, func() {
			_, stop := watch(t, r)
			time.Sleep(time.Minute)
			stop()
		})
		require.Empty(t, text)
	})
}

// A single failed query is not an outage. For example, a proxy may end queries that take long.
func TestASingleFailureIsNotLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := onTransport(t, func(req *http.Request) (*http.Response, error) {
			if req.URL.Query().Has("index") {
				time.Sleep(20 * time.Second)
				return refusal(504, "Gateway Timeout"), nil
			}
			return answer(100, "a"), nil
		})
		text := logged(t, func() {
			changes, stop := watch(t, r)
			time.Sleep(5 * time.Minute)
			require.NotEmpty(t, changes())
			stop()
		})
		require.Empty(t, text)
	})
}

func TestTheWatcherMovesToTheNextAgentAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var aDown atomic.Bool
		var asked [2]atomic.Int64
		r := onTransport(t, func(req *http.Request) (*http.Response, error) {
			if req.URL.Host == "a:8500" {
				asked[0].Add(1)
				if aDown.Load() {
					return nil, &url.Error{Op: "Get", URL: "http://a:8500", Err: errors.New("connection refused")}
				}
			} else {
				asked[1].Add(1)
			}
			if req.URL.Query().Get("index") == "100" {
				wait, err := time.ParseDuration(req.URL.Query().Get("wait"))
				require.NoError(t, err)
				time.Sleep(wait)
			}
			return answer(100, "n"), nil
		}, "a", " b", "")
		require.Equal(t, []string{"a", "b"}, r.agents())
		text := logged(t, func() {
			_, stop := watch(t, r)
			time.Sleep(time.Second)
			require.NotZero(t, asked[0].Load())
			require.Zero(t, asked[1].Load())

			aDown.Store(true)
			time.Sleep(waitTime + time.Second)
			require.NotZero(t, asked[1].Load())

			aDown.Store(false)
			before := asked[0].Load()
			time.Sleep(skipTime + otherWaitTime + time.Second)
			require.Greater(t, asked[0].Load(), before)
			before = asked[1].Load()
			time.Sleep(5 * time.Minute)
			require.Equal(t, before, asked[1].Load())
			stop()
		})
		require.Empty(t, text)
	})
}

// laggingCluster is a Consul with two servers. One server answers the watcher's queries, and the
// other server answers lookups. Each server has its own index. A server at index 100 lists the node
// a. A server at index 101 lists the nodes a and b.
type laggingCluster struct {
	queries, lookups atomic.Uint64 // the indexes of the servers
	down             atomic.Bool   // queries fail
}

func (c *laggingCluster) RoundTrip(req *http.Request) (*http.Response, error) {
	query := req.URL.Query()
	index := &c.lookups
	if query.Has("wait") {
		index = &c.queries
		for end := time.Now().Add(waitTime); query.Get("index") == fmt.Sprint(index.Load()) && time.Now().Before(end) && !c.down.Load(); {
			time.Sleep(time.Second / 10)
		}
		if c.down.Load() {
			return refusal(500, "No cluster leader"), nil
		}
	}
	if index.Load() == 100 {
		return answer(100, "a"), nil
	}
	return answer(101, "a", "b"), nil
}

// The watcher reports a new node even if the server that answers the lookup gets the node later
// than the other server.
func TestALookupAtALaggingServerIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := new(laggingCluster)
		c.queries.Store(100)
		c.lookups.Store(100)
		changes, stop := watch(t, onTransport(t, c.RoundTrip))
		time.Sleep(time.Second)
		require.Equal(t, []string{"update a"}, changes())

		c.queries.Store(101)
		time.Sleep(5 * time.Second)
		require.NotContains(t, changes(), "update a b")
		c.lookups.Store(101)
		time.Sleep(2 * queryInterval)
		require.Equal(t, []string{"update a b"}, last(changes(), 1))
		stop()
	})
}

// During an outage, GetService may replace the known list with an older list. After the outage, the
// watcher replaces the older list, even if Consul's index has not changed.
func TestAnOlderListIsReplacedAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := new(laggingCluster)
		c.queries.Store(101)
		c.lookups.Store(101)
		r := onTransport(t, c.RoundTrip)
		logged(t, func() {
			_, stop := watch(t, r)
			time.Sleep(time.Second)

			c.lookups.Store(100)
			c.down.Store(true)
			time.Sleep(time.Second)
			services, err := r.GetService("svc")
			require.NoError(t, err)
			require.Equal(t, []string{"a"}, ids(services))

			c.lookups.Store(101)
			c.down.Store(false)
			time.Sleep(2 * maxRetry)
			services, err = r.GetService("svc")
			require.NoError(t, err)
			require.Equal(t, []string{"a", "b"}, ids(services))
			stop()
		})
	})
}

// If Consul returns from an outage without its catalog, GetService may see the empty catalog before
// the watcher does. It must keep the nodes, as the watcher does, until the nodes have had time to
// register again.
func TestAnEmptyCatalogAfterAnOutageIsLeftToTheWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var consul atomic.Pointer[func() *http.Response]
		become := func(rsp func() *http.Response) { consul.Store(&rsp) }
		become(func() *http.Response { return answer(100, "a") })
		r := onTransport(t, func(*http.Request) (*http.Response, error) { return (*consul.Load())(), nil })
		requireNodes := func(want ...string) {
			t.Helper()
			services, err := r.GetService("svc")
			require.NoError(t, err)
			require.Equal(t, want, ids(services))
		}
		logged(t, func() {
			changes, stop := watch(t, r)
			time.Sleep(time.Second)
			require.Equal(t, []string{"update a"}, changes())

			become(func() *http.Response { return refusal(http.StatusInternalServerError, "No cluster leader") })
			time.Sleep(10 * time.Minute)
			requireNodes("a")

			become(func() *http.Response { return answer(5) })
			requireNodes("a") // the watcher has not queried Consul again
			time.Sleep(maxRetry + recoverTime/2)
			requireNodes("a")
			require.Equal(t, []string{"update a"}, last(changes(), 1))

			time.Sleep(recoverTime)
			requireNodes()
			require.Equal(t, []string{"delete a"}, last(changes(), 1))
			stop()
		})
	})
}
