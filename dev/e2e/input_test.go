package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	microerrors "github.com/micro/go-micro/errors"
	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/server"
	grpcserver "github.com/micro/go-micro/server/grpc"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/gomicroexample/basis/internal/cmdline"
	consulregistry "github.com/gomicroexample/basis/internal/consul"
	"github.com/gomicroexample/basis/proto"
)

// address returns the address that a server listens on, from the server's log.
func address(ts *testscript.TestScript, name string) string {
	m := regexp.MustCompile(`Listening on (\S+:\d+)`).FindStringSubmatch(ts.ReadFile(name + ".log"))
	if m == nil {
		ts.Fatalf("%s does not say in its log where it listens", name)
	}
	return m[1]
}

// The command "listening name" sets $ADDR to the address that a server listens on.
func listening(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "listening name")
	ts.Setenv("ADDR", address(ts, args[0]))
}

// The command "peak name MB" fails the script if the resident memory of a process has ever been
// larger than MB megabytes. It also adds the maximum to the script's row, and records the row.
func peak(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 2, "peak name MB")
	limit, err := strconv.Atoi(args[1])
	ts.Check(err)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", of(ts).process(ts, args[0]).Pid()))
	ts.Check(err)
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		ts.Fatalf("no peak of %s in:\n%s", args[0], status)
	}
	kB, err := strconv.Atoi(string(m[1]))
	ts.Check(err)
	if kB > limit*1024 {
		ts.Fatalf("%s had %.1f MB resident, more than %d MB", args[0], float64(kB)/1024, limit)
	}
	s := of(ts)
	s.row.Note("%.1f MB", float64(kB)/1024)
	recordTo(&inputs, s.row)
}

// The command "longname n file" writes a request in JSON to file. The request's name has n bytes.
func longname(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 2, "longname n file")
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), fmt.Appendf(nil, `{"name":%q}`, strings.Repeat("x", n)), 0o644))
}

// The command "post [-encoding=e] name content-type hex" sends a request to the method Hello of a
// server. hex is the request's body. -encoding sets the header grpc-encoding. If content-type is
// empty, the request does not have this header. The command uses a plain HTTP/2 client, because
// gRPC's client cannot send malformed requests. It prints HTTP's status, gRPC's status and message,
// and the response's body.
func post(ts *testscript.TestScript, neg bool, args []string) {
	encoding := ""
	if len(args) == 4 {
		encoding, args = strings.TrimPrefix(args[0], "-encoding="), args[1:]
	}
	want(ts, !neg && len(args) == 3, "post [-encoding=e] name content-type hex")
	var body []byte
	_, err := fmt.Sscanf(args[2]+" ", "%x ", &body)
	if args[2] != "" {
		ts.Check(err)
	}
	transport := newTransport()
	defer transport.CloseIdleConnections()
	answer, err := postHello(transport, address(ts, args[0]), http.Header{"Content-Type": {args[1]}, "Grpc-Encoding": {encoding}}, body)
	ts.Check(err)
	fmt.Fprintln(ts.Stdout(), answer)
}

// newTransport returns a transport for HTTP/2 without TLS.
func newTransport() *http.Transport {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	return transport
}

// postHello sends body to Hello, and returns the response in the format that post prints. It does
// not send empty headers.
func postHello(transport *http.Transport, addr string, header http.Header, body []byte) (string, error) {
	ctx, cancel := patient()
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/proto.Basis/Hello", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	for key := range header {
		if value := header.Get(key); value != "" {
			req.Header.Set(key, value)
		}
	}
	rsp, err := transport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer rsp.Body.Close()
	answer, err := io.ReadAll(rsp.Body)
	if err != nil {
		return "", err
	}
	grpcStatus := func(key string) string { return rsp.Header.Get(key) + rsp.Trailer.Get(key) }
	return fmt.Sprintf("http=%d grpc=%s %s%s", rsp.StatusCode, grpcStatus("Grpc-Status"), grpcStatus("Grpc-Message"), answer), nil
}

// The command "bombs name n" sends n requests at once on one connection. Each request has a
// compressed message of 60 KB, which decompresses to 60 MB. The server must reject each message as
// too large.
func bombs(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 2, "bombs name n")
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	addr := address(ts, args[0])
	body := bytes.NewBuffer(make([]byte, 5)) // gRPC's prefix: the compressed flag and the length
	z := gzip.NewWriter(body)
	_, err = z.Write(make([]byte, 60<<20))
	ts.Check(err)
	ts.Check(z.Close())
	message := body.Bytes()
	message[0] = 1
	binary.BigEndian.PutUint32(message[1:], uint32(len(message)-5))

	transport := newTransport()
	defer transport.CloseIdleConnections()
	header := http.Header{"Content-Type": {"application/grpc"}, "Grpc-Encoding": {"gzip"}}
	var callers sync.WaitGroup
	failures := make(chan error, n)
	for range n {
		callers.Go(func() {
			answer, err := postHello(transport, addr, header, message)
			if err == nil && !strings.HasPrefix(answer, "http=200 grpc=8 grpc: received message after decompression larger than max 65536") {
				err = errors.New(answer)
			}
			if err != nil {
				failures <- err
			}
		})
	}
	callers.Wait()
	close(failures)
	for err := range failures {
		ts.Fatalf("a gzip of %d bytes: %v", len(message), err)
	}
}

// preface is the beginning of an HTTP/2 client's connection, with empty settings.
const preface = http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// The command "garbage name n seed" sends n random byte strings to a server, each on its own
// connection. A third of the strings have only random bytes. A third begin with HTTP/2's preface,
// and a third with the preface and the header of a frame. The server must close each connection.
func garbage(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 3, "garbage name n seed")
	addr := address(ts, args[0])
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	seed, err := strconv.ParseUint(args[2], 10, 64)
	ts.Check(err)
	random := rand.New(rand.NewPCG(seed, 0))
	strings := make(chan []byte)
	go func() {
		defer close(strings)
		for i := range n {
			strings <- randomBytes(random, i%3)
		}
	}()
	var senders sync.WaitGroup
	var answered atomic.Int64 // number of connections on which the server sent at least one byte
	failures := make(chan error, 8)
	for range cap(failures) {
		senders.Go(func() {
			for b := range strings {
				read, err := send(addr, b)
				if err != nil {
					failures <- fmt.Errorf("after %x: %w", b, err)
					for range strings { // drain the channel, so that its sender can return
					}
					return
				}
				if read > 0 {
					answered.Add(1)
				}
			}
		})
	}
	senders.Wait()
	close(failures)
	for err := range failures {
		ts.Fatalf("seed %d: %v", seed, err)
	}
	of(ts).row.Note("seed %d; all connections closed, %d of them after a response", seed, answered.Load())
}

// randomBytes returns fewer than 1,000 random bytes. With depth 1, it puts HTTP/2's preface before
// the random bytes. With depth 2, it puts the preface and the header of a frame before them.
func randomBytes(random *rand.Rand, depth int) []byte {
	var b []byte
	if depth > 0 {
		b = append(b, preface...)
	}
	n := random.IntN(1000)
	if depth > 1 { // length, type, flags and a small stream ID
		b = append(b, 0, byte(n>>8), byte(n), byte(random.IntN(10)), byte(random.IntN(256)), 0, 0, 0, byte(random.IntN(4)))
	}
	for range n {
		b = append(b, byte(random.IntN(256)))
	}
	return b
}

// send writes b on a new connection, and reads until the server closes the connection. It returns
// the number of bytes read.
func send(addr string, b []byte) (int64, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	if _, err := conn.Write(b); err != nil && !isClosed(err) {
		return 0, err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil && !isClosed(err) {
		return 0, err
	}
	n, err := io.Copy(io.Discard, conn)
	if isClosed(err) {
		err = nil
	}
	return n, err
}

// isClosed reports whether err means that the peer has closed the connection.
func isClosed(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ENOTCONN)
}

// The command "halfopen name n duration" opens n connections to a server. On each connection, it
// sends only a part of a request: nothing, a part of HTTP/2's preface, the preface, or the preface
// and a part of the headers. Then it makes normal calls for duration, and no call may fail. In the
// end, the server must have closed all n connections.
func halfopen(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 3, "halfopen name n duration")
	addr := address(ts, args[0])
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	d, err := time.ParseDuration(args[2])
	ts.Check(err)
	beginnings := []string{
		"",
		preface[:10],
		preface,
		preface + "\x00\x00\x10\x01\x00\x00\x00\x00\x01", // announces 16 bytes of headers, which never come
	}
	var closed atomic.Int64
	for i := range n {
		conn, err := net.Dial("tcp", addr)
		ts.Check(err)
		defer conn.Close()
		_, err = io.WriteString(conn, beginnings[i%len(beginnings)])
		ts.Check(err)
		go func() {
			_, _ = io.Copy(io.Discard, conn) // until the server closes conn, or halfopen returns
			closed.Add(1)
		}()
	}
	made, failed := callFor(ts, addr, d)
	if failed > 0 || made == 0 || closed.Load() != int64(n) {
		ts.Fatalf("%d of %d half-open connections closed by the server; %d of %d normal calls failed meanwhile", closed.Load(), n, failed, made)
	}
	s := of(ts)
	s.row.Calls, s.row.Failed = made, failed
	s.row.Note("the server closed all")
}

// callFor makes normal calls, one after another, for the duration d. It returns the numbers of
// calls and of failed calls.
func callFor(ts *testscript.TestScript, addr string, d time.Duration) (made, failed int) {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	ts.Check(err)
	defer conn.Close()
	for end := time.Now().Add(d); time.Now().Before(end); made++ {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		rsp := new(proto.Response)
		err := conn.Invoke(ctx, "/proto.Basis/Hello", &proto.Request{Name: "John"}, rsp)
		cancel()
		if err != nil || rsp.GetMsg() != "Hello John" {
			ts.Logf("call %d: %q, %v", made+1, rsp.GetMsg(), err)
			failed++
		}
	}
	return made, failed
}

// The command "deaf name n" sends up to n requests on one connection, and never reads a response.
// The server must close the connection before it has received all n requests.
func deaf(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 2, "deaf name n")
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	addr := address(ts, args[0])
	conn, err := net.Dial("tcp", addr)
	ts.Check(err)
	defer conn.Close()
	ts.Check(conn.(*net.TCPConn).SetReadBuffer(1 << 10))
	var headers bytes.Buffer
	encoder := hpack.NewEncoder(&headers)
	_, err = io.WriteString(conn, preface)
	ts.Check(err)
	framer := http2.NewFramer(conn, nil)
	message := "\x0a\xff\x01" + strings.Repeat("x", 255)
	body := append([]byte{0, 0, 0, byte(len(message) >> 8), byte(len(message))}, message...)
	sent := 0
	for ; err == nil && sent < n; sent++ {
		headers.Reset()
		for _, f := range [][2]string{
			{":method", "POST"}, {":scheme", "http"}, {":path", "/proto.Basis/Hello"}, {":authority", addr},
			{"content-type", "application/grpc"}, {"te", "trailers"},
		} {
			ts.Check(encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}))
		}
		ts.Check(conn.SetWriteDeadline(time.Now().Add(patience)))
		id := uint32(2*sent + 1)
		err = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: headers.Bytes(), EndHeaders: true})
		if err == nil {
			err = framer.WriteData(id, true, body)
		}
	}
	if !isClosed(err) {
		ts.Fatalf("a client that never reads sent %d requests, and the server did not close the connection: %v", sent, err)
	}
	of(ts).row.Note("closed after %d requests", sent)
}

// The command "flood name n" makes n calls at once on one connection. On each call, after the
// first message, it keeps sending messages of 60 KB, until the server ends the call or 12 s have
// passed.
func flood(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 2, "flood name n")
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	conn, err := grpc.NewClient(address(ts, args[0]), grpc.WithTransportCredentials(insecure.NewCredentials()))
	ts.Check(err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 12*time.Second)
	defer cancel()
	var callers sync.WaitGroup
	var sent atomic.Int64
	for range n {
		callers.Go(func() {
			stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/proto.Basis/Hello")
			if err != nil {
				return
			}
			for name := "John"; stream.SendMsg(&proto.Request{Name: name}) == nil; sent.Add(1) {
				name = strings.Repeat("x", 60_000)
			}
		})
	}
	callers.Wait()
	of(ts).row.Note("%d messages accepted", sent.Load())
}

// The command "impostor" starts a hostile server, which registers in the script's Consul as a node
// of go.micro.srv.basis. The server's responses have several lines, or are larger than the client
// accepts.
func impostor(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 0, "impostor")
	r, err := consulregistry.NewRegistry()
	ts.Check(err)
	ts.Check(r.Init(registry.Addrs(of(ts).consul.Addr)))
	s := grpcserver.NewServer(
		grpcserver.MaxMsgSize(8<<20),
		server.Name("go.micro.srv.basis"),
		server.Address("127.0.0.1:0"),
		server.Registry(r),
		server.Broker(cmdline.NewBroker()),
	)
	ts.Check(proto.RegisterBasisHandler(s, hostileHandler{}))
	ts.Check(s.Start())
	ts.Defer(func() { _ = s.Stop() })
}

type hostileHandler struct{}

func (hostileHandler) Hello(_ context.Context, req *proto.Request, rsp *proto.Response) error {
	switch req.GetName() {
	case "huge":
		rsp.Msg = strings.Repeat("x", 5_000_000)
	case "error":
		return microerrors.BadRequest("go.micro.srv.basis\nforged", "no\r\nforged \x1b[2J")
	case "status":
		return &microerrors.Error{Id: "go.micro.srv.basis", Code: 500, Status: "\nforged \x1b[2J"}
	default:
		rsp.Msg = "Hello\nforged \x1b[2J"
	}
	return nil
}

// The command "liar" starts an HTTP server that pretends to be Consul, and sets $LIAR to its
// address. The server responds to all requests with an error of several lines.
func liar(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 0, "liar")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no leader\nforged \x1b[2J", http.StatusInternalServerError)
	}))
	ts.Defer(s.Close)
	ts.Setenv("LIAR", s.Listener.Addr().String())
}

// The command "balance" starts a load balancer in front of the script's two agents, and sets
// $BALANCED to the load balancer's address. The load balancer sends requests to the two agents in
// turn.
func balance(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 0, "balance, after agent and join")
	agents := []string{ts.Getenv("CONSUL"), ts.Getenv("AGENT")}
	var requests atomic.Int64
	s := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: agents[int(requests.Add(1))%len(agents)]})
	}})
	ts.Defer(s.Close)
	ts.Setenv("BALANCED", s.Listener.Addr().String())
}
