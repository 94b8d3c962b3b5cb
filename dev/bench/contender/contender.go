// Package contender is what all that is compared has in common: the command line
// of its server and client, and the load that its client makes.
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

// Env is what every contender is told.
type Env struct {
	Registry string // host:port of Consul
	Service  string // the name that the server registers under and that the client looks for
	Spans    string // host:port that takes spans, over UDP or OTLP/gRPC; empty: nothing is traced
	Address  string // for a client that does not discover: host:ports of its server, separated by commas
	Host     string // address that the server listens on
	Shipped  bool   // leave what the pair sets too at the defaults; without it, all have the pair's settings
}

// Call makes one call of Hello and returns the answer.
type Call func(ctx context.Context, name string) (msg string, err error)

// Hello is what every server answers to name. As the pair's handler does, after
// the article's, it logs a line first.
func Hello(name string) string {
	log.Print("Yoooo! I received it")
	return "Hello " + name
}

// Contender is one of what is compared.
type Contender struct {
	// Serve listens on a free port of env.Host and answers Hello until ctx is
	// done. It is nil for a client of srv. It calls ready with its host:port as soon as it can be called and, if
	// its clients discover, is registered.
	Serve func(ctx context.Context, env Env, ready func(address string)) error
	// Dial returns what makes calls, when it knows where the server is, or an
	// error when ctx is done. Closing the io.Closer sends the last spans.
	Dial func(ctx context.Context, env Env) (Call, io.Closer, error)
}

// Ready is what a server prints when it is ready, before its address.
const Ready = "ready at "

// dialTimeout is how long a client looks for its server.
const dialTimeout = 20 * time.Second

// Main is main of a contender. Its first argument is server or client, and flags
// tell its Env and what the contender itself has added to flag.CommandLine. The
// client reads a Load as JSON from each line on stdin, and prints its Result as
// JSON on a line, until stdin ends.
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
		_ = flag.CommandLine.Parse(os.Args[2:]) // which exits on errors
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

// load makes the loads that stdin asks for.
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

// Closer is a function as an io.Closer.
type Closer func() error

// Close calls the function.
func (c Closer) Close() error { return c() }
