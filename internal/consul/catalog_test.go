package consul

import (
	"bytes"
	"compress/zlib"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/micro/go-micro/registry"
	"github.com/stretchr/testify/require"
)

// encoded returns data in go-micro's encoding of tags.
func encoded(data string) string {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	_, _ = w.Write([]byte(data))
	w.Close()
	return hex.EncodeToString(b.Bytes())
}

// listing returns a registry with a Consul that responds with body to every request.
func listing(t *testing.T, body string) registry.Registry {
	t.Helper()
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) }))
	t.Cleanup(agent.Close)
	t.Setenv("CONSUL_HTTP_ADDR", agent.Listener.Addr().String())
	return newRegistry(t)
}

// node returns the JSON of a node of svc. The fields in service replace the default fields.
func node(t *testing.T, id string, service map[string]any) string {
	t.Helper()
	all := map[string]any{"ID": id, "Service": "svc", "Address": "192.0.2.1", "Port": 4711}
	for k, v := range service {
		all[k] = v
	}
	b, err := json.Marshal(map[string]any{"Node": map[string]any{"Address": "192.0.2.9"}, "Service": all})
	require.NoError(t, err)
	return string(b)
}

// The test puts each foreign tag once before go-micro's own tags, and once after them. GetService
// must return the node with the data of go-micro's own tags.
func TestTagsOfOtherTools(t *testing.T) {
	own := []string{
		"t-" + encoded(`{"transport":"grpc"}`),
		"e-" + encoded(`{"name":"Basis.Hello"}`),
		"v-" + encoded("1.0"),
	}
	foreign := []string{
		"", "t", "e", "v", "-", "=", "t-", "e-", "t=", "e=", "tt", "ee", "é", "\x00", "t\x00", "e\xff",
		"traefik.enable=true", "env=prod", "edge", "urlprefix-/basis strip=/basis", "t-shirts", "e-commerce", "v-next",
		"t=1", "e=1", "t={", "e={", "t=[]", "e=[]", "t=true", "e=true", `t={"a":1}`, `e={"name":1}`, "e=null", " e=null",
		"t-0", "e-0", "t-zz", "e-zz", "v-zz", "t-00", "e-00", "v-00", "t-78", "e-789c", "v-789c", "T-" + encoded("{}"),
		"e-" + encoded("null"), "e-" + encoded(""), "e-" + encoded("["), "t-" + encoded("7"), "t-" + encoded(""),
		"t-" + encoded(`{"a":null}`)[:20], "e-" + encoded(`{"name":"x"}`) + "0",
		"t-" + encoded(strings.Repeat(" ", 1<<20)), "e-" + encoded(`"`+strings.Repeat("x", 1<<20)+`"`), "v-" + encoded(strings.Repeat("9", 1<<20)),
		"e-" + encoded(`{"request":`+strings.Repeat(`{"values":[`, 5000)+strings.Repeat(`]}`, 5000)+`}`),
		`e={"name":"x","request":{"values":[null]`, "t=" + strings.Repeat("x", 1<<20),
	}
	for _, tag := range foreign {
		for _, tags := range [][]string{append([]string{tag}, own...), append(own[:len(own):len(own)], tag)} {
			var services []*registry.Service
			logged(t, func() {
				var err error
				services, err = listing(t, "["+node(t, "a", map[string]any{"Tags": tags})+"]").GetService("svc")
				require.NoError(t, err, "%.60q", tag)
			})
			require.Equal(t, []string{"a"}, ids(services), "%.60q", tag)
			require.Equal(t, "1.0", services[0].Version, "%.60q", tag)
			require.Equal(t, map[string]string{"transport": "grpc"}, services[0].Nodes[0].Metadata, "%.60q", tag)
			require.Len(t, services[0].Endpoints, 1, "%.60q", tag)
			require.Equal(t, "Basis.Hello", services[0].Endpoints[0].Name, "%.60q", tag)
			registry.Copy(services)
		}
	}
}

// Whatever the tags are, the registry must not panic, and must not leave out the node.
func FuzzTags(f *testing.F) {
	for _, tag := range []string{"t", "e", "e=null", "e-" + encoded("null"), "t-" + encoded(`{"a":"b"}`), "v=1"} {
		f.Add(tag, tag)
	}
	f.Fuzz(func(t *testing.T, one, other string) {
		body := "[" + node(t, "a", map[string]any{"Tags": []string{one, other, one}}) + "]"
		r := onTransport(t, func(*http.Request) (*http.Response, error) { return refusal(http.StatusOK, body), nil })
		logged(t, func() {
			services, err := r.GetService("svc")
			require.NoError(t, err)
			require.Equal(t, []string{"a"}, ids(registry.Copy(services)))
		})
	})
}

func TestNodesThatCannotBeCalled(t *testing.T) {
	good := node(t, "good", nil)
	for name, test := range map[string]struct{ entry, log string }{
		"no port":                {node(t, "x", map[string]any{"Port": 0}), `Ignoring the node "x" of svc in Consul: port 0 is not from 1 to 65535`},
		"negative port":          {node(t, "x", map[string]any{"Port": -1}), `port -1 is not from 1 to 65535`},
		"large port":             {node(t, "x", map[string]any{"Port": 65536}), `port 65536 is not from 1 to 65535`},
		"huge port":              {node(t, "x", map[string]any{"Port": 1e30}), `Ignoring a node of svc in Consul: json: `},
		"port in words":          {node(t, "x", map[string]any{"Port": "http"}), `Ignoring a node of svc in Consul: json: `},
		"URL":                    {node(t, "x", map[string]any{"Address": "http://192.0.2.1"}), `address "http://192.0.2.1" is neither an IP address nor a host name`},
		"port twice":             {node(t, "x", map[string]any{"Address": "192.0.2.1:80"}), `address "192.0.2.1:80" is neither`},
		"socket":                 {node(t, "x", map[string]any{"Address": "unix:/run/x"}), `address "unix:/run/x" is neither`},
		"several lines":          {node(t, "x\nforged", map[string]any{"Address": "a\nb"}), `the node "x\nforged" of svc in Consul: address "a\nb" is neither`},
		"no address":             {`{"Service": {"ID": "x", "Service": "svc", "Port": 1}}`, `address "" is neither`},
		"null":                   {`null`, ""},
		"no service":             {`{}`, ""},
		"null service":           {`{"Node": null, "Service": null, "Checks": null}`, ""},
		"another service":        {node(t, "x", map[string]any{"Service": "svc2"}), ""},
		"a number":               {`7`, `Ignoring a node of svc in Consul: json: `},
		"tags that are no texts": {node(t, "x", map[string]any{"Tags": []any{1}}), `Ignoring a node of svc in Consul: json: `},
		"the same node again":    {good, ""},
	} {
		t.Run(name, func(t *testing.T) {
			text := logged(t, func() {
				r := listing(t, "["+test.entry+","+good+","+test.entry+"]")
				for range 3 {
					services, err := r.GetService("svc")
					require.NoError(t, err)
					require.Equal(t, []string{"good"}, ids(services))
				}
			})
			if test.log == "" {
				require.Empty(t, text)
				return
			}
			require.Equal(t, 1, strings.Count(text, "\n"), text)
			require.Contains(t, text, test.log)
		})
	}
}

func TestNodesThatCanBeCalled(t *testing.T) {
	for name, test := range map[string]struct{ entry, want string }{
		"a host name":        {node(t, "x", map[string]any{"Address": "Host-1.example_2.com."}), "Host-1.example_2.com.:4711"},
		"the node's address": {node(t, "x", map[string]any{"Address": ""}), "192.0.2.9:4711"},
		"IPv6":               {node(t, "x", map[string]any{"Address": "fd00::2"}), "[fd00::2]:4711"},
		"IPv6 in brackets":   {node(t, "x", map[string]any{"Address": "[fd00::2]"}), "[fd00::2]:4711"},
		"null in Checks":     {`{"Service": {"ID": "x", "Service": "svc", "Address": "h", "Port": 1}, "Checks": [null]}`, "h:1"},
		"odd weights":        {node(t, "x", map[string]any{"Weights": map[string]any{"Passing": -1e9}, "Meta": "text", "Proxy": 1}), "192.0.2.1:4711"},
		"odd checks":         {`{"Service": {"ID": "x", "Service": "svc", "Address": "h", "Port": 1}, "Checks": [{"Status": "passing", "Definition": {"Interval": "soon"}}]}`, "h:1"},
		"no tags":            {node(t, "x", map[string]any{"Tags": nil}), "192.0.2.1:4711"},
	} {
		t.Run(name, func(t *testing.T) {
			services, err := listing(t, "["+test.entry+"]").GetService("svc")
			require.NoError(t, err)
			require.Equal(t, []string{"x"}, ids(services))
			require.Equal(t, test.want, services[0].Nodes[0].Address)
		})
	}
	critical := `{"Service": {"ID": "x", "Service": "svc", "Address": "h", "Port": 1, "Tags": ["t"]}, "Checks": [{"Status": "critical"}]}`
	services, err := listing(t, "["+critical+"]").GetService("svc")
	require.NoError(t, err)
	require.Empty(t, ids(services))
}

// A node's ID is unique at one agent only.
func TestNodesOfTwoAgentsWithOneID(t *testing.T) {
	r := listing(t, "["+node(t, "x", nil)+","+node(t, "x", map[string]any{"Address": "192.0.2.2"})+"]")
	services, err := r.GetService("svc")
	require.NoError(t, err)
	require.Equal(t, []string{"x", "x@192.0.2.2:4711"}, ids(services))
}

// A few KB of compressed tags in a catalog can decompress to many MB.
func TestCompressedTagsTakeNoMemory(t *testing.T) {
	bombs := make([]string, 16) // each tag is different
	for i := range bombs {
		bombs[i] = "e-" + encoded(fmt.Sprint(i)+strings.Repeat(" ", 1<<20))
	}
	const each = maxNodeTags - 100
	tag := "t-" + encoded(fmt.Sprintf(`{"a":%q}`, strings.Repeat("x", each-8)))
	entries := []string{node(t, "bombs", map[string]any{"Tags": bombs})}
	const nodes = maxTags/each + 10
	for i := range nodes {
		entries = append(entries, node(t, fmt.Sprint(i), map[string]any{"Tags": []string{tag, tag}}))
	}
	body := "[" + strings.Join(entries, ",") + "]"
	transport := catalogTransport{notes: new(notes)}
	var before, after runtime.MemStats
	var cleaned []byte
	text := logged(t, func() {
		runtime.ReadMemStats(&before)
		cleaned = transport.clean("svc", []byte(body))
		runtime.ReadMemStats(&after)
	})
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(12<<20), "the tags of the first node alone inflate to 16 MB")
	require.Contains(t, text, "the tags of a node may have 64 KB, and those of a service 16 MB")
	var kept []entry
	require.NoError(t, json.Unmarshal(cleaned, &kept))
	require.Len(t, kept, 1+nodes)
	require.Empty(t, kept[0].Service.Tags)
	require.Len(t, kept[1].Service.Tags, 1, "the second is over the limit of the node")
	require.Empty(t, kept[nodes].Service.Tags, "over the limit of the answer")
}

// endless is a response body without an end.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }
func (endless) Close() error               { return nil }

func TestAnAnswerThatIsTooLarge(t *testing.T) {
	r := onTransport(t, func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: endless{}}, nil
	})
	transport := catalogTransport{r.config.HttpClient.Transport, new(notes)}
	_, err := transport.RoundTrip(httptest.NewRequest(http.MethodGet, "/v1/health/service/svc", nil))
	require.EqualError(t, err, "reading the nodes of svc: http: request body too large")
	rsp, err := transport.RoundTrip(httptest.NewRequest(http.MethodGet, "/v1/catalog/services", nil))
	require.NoError(t, err)
	n, err := io.Copy(io.Discard, rsp.Body)
	require.Error(t, err)
	require.LessOrEqual(t, n, int64(maxAnswer))
}

func TestWhatIsIgnoredIsLoggedAFewTimes(t *testing.T) {
	n := new(notes)
	text := logged(t, func() {
		for i := range 2 * maxNotes {
			n.add("line %d", i)
			n.add("line %d", i)
		}
	})
	require.Equal(t, maxNotes, strings.Count(text, "\n"))
	require.Contains(t, text, "line 99; further such lines are left out\n")
}
