// Package contender has the code that all compared programs share: the command line of a server and
// a client, and the load that the client makes. A contender is a program that the bench compares.
package contender

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	_ "net/http/pprof" // profiles, for -pprof
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Env has the settings that every contender gets.
type Env struct {
	Registry string // host:port of Consul
	Service  string // the name that the server registers under and that the client looks for
	Spans    string // host:port that receives spans, over UDP or OTLP/gRPC; empty: nothing is traced
	Address  string // for a client without discovery: host:ports of its server, separated by commas
	Host     string // address that the server listens on
	Shipped  bool   // use the library's defaults instead of the pair's settings
}

// Call makes one call of Hello and returns the response's message.
type Call func(ctx context.Context, name string) (msg string, err error)

// Hello logs the article's line and returns "Hello " and the name, as the pair's handler does.
func Hello(name string) string {
	log.Print("Yoooo! I received it")
	return "Hello " + name
}

// Contender has the server and the client of a compared program.
type Contender struct {
	// Serve listens on a free port of env.Host and serves Hello until ctx is done. If clients find
	// the server in Consul, Serve registers the server there. When clients can call the server,
	// Serve calls ready with the server's host:port. Serve is nil if the server is srv.
	Serve func(ctx context.Context, env Env, ready func(address string)) error
	// Dial returns a function that calls the server. Some contenders find the server in Dial, and
	// others in the first call. If Dial looks for the server, and ctx is done before it finds the
	// server, Dial returns an error. Closing the io.Closer sends the last spans.
	Dial func(ctx context.Context, env Env) (Call, io.Closer, error)
}

// Ready is the text that a server prints before its address when it is ready.
const Ready = "ready at "

// dialTimeout is the time limit for Contender.Dial.
const dialTimeout = 20 * time.Second

// Main is the main function of a contender. It does not return.
//
// The first argument of the program is "server" or "client". Flags follow: the fields of Env,
// -pprof, and the flags that the contender has added to flag.CommandLine. The client reads a Load
// as JSON from stdin, makes the calls, and prints the Result as a line of JSON. It repeats this
// until the end of stdin.
func Main(c Contender) {
	os.Exit(run(c))
}

func run(c Contender) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var env Env
	flag.StringVar(&env.Registry, "registry", "", "`host:port` of Consul")
	flag.StringVar(&env.Service, "service", "", "the `name` that the server registers under and that the client looks for")
	flag.StringVar(&env.Spans, "spans", "", "`host:port` that takes spans; without it, nothing is traced")
	flag.StringVar(&env.Address, "address", "", "client that does not discover: `host:port` of its server")
	flag.StringVar(&env.Host, "host", "127.0.0.1", "server: `address` to listen on")
	flag.BoolVar(&env.Shipped, "shipped", false, "leave the settings at the library's defaults, instead of the pair's")
	profiles := flag.String("pprof", "", "`host:port` to serve profiles on; without it, none are served")
	role := ""
	if len(os.Args) > 1 {
		role = os.Args[1]
		_ = flag.CommandLine.Parse(os.Args[2:]) // Parse exits on errors
	}
	if *profiles != "" {
		go func() { log.Fatal(http.ListenAndServe(*profiles, nil)) }()
	}
	var err error
	switch {
	case flag.NArg() > 0:
		fmt.Fprintf(os.Stderr, "unexpected argument %q\n", flag.Arg(0))
		return 2
	case role == "server" && c.Serve != nil:
		err = c.Serve(ctx, env, func(address string) { fmt.Printf("%s%s\n", Ready, address) })
	case role == "client":
		err = load(ctx, c, env)
	default:
		fmt.Fprintf(os.Stderr, "the first argument is %q; want server or client\n", role)
		return 2
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// load reads each Load from stdin, makes its calls, and prints the Result.
func load(ctx context.Context, c Contender, env Env) (err error) {
	dialCtx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	call, closer, err := c.Dial(dialCtx, env)
	if err != nil {
		return fmt.Errorf("finding %s: %w", env.Service, err)
	}
	defer func() { err = errors.Join(err, closer.Close()) }()
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var l Load
		if err := in.Decode(&l); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading a load from stdin: %w", err)
		}
		if err := out.Encode(l.make(ctx, call)); err != nil {
			return err
		}
	}
}

// Closer is a function that implements io.Closer.
type Closer func() error

// Close calls the function.
func (c Closer) Close() error { return c() }
