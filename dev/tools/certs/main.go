// Command certs creates a temporary CA and certificates, to try TLS. "make certs" runs the command
// in the project's top directory.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gomicroexample/basis/internal/mtls/mtlstest"
)

// skew is the time by which the clock of another machine may be behind the clock of this machine.
const skew = time.Minute

func main() {
	dir := flag.String("dir", "certs", "where to put them")
	valid := flag.Duration("valid", 24*time.Hour, "how long they are valid from now on")
	flag.Parse()
	now := time.Now()
	if err := mtlstest.WriteFiles(*dir, now.Add(-skew), now.Add(*valid)); err != nil {
		fmt.Fprintf(os.Stderr, "certs: %v\n", err)
		os.Exit(1)
	}
	fmt.Printf("A new CA and its certificates are in %s, valid for %v:\n\n", *dir, *valid)
	for _, side := range []string{"srv", "client"} {
		file := filepath.Join(*dir, side)
		fmt.Printf("go run ./%s --tls_cert=%s.pem --tls_key=%s-key.pem --tls_ca=%s\n",
			side, file, file, filepath.Join(*dir, "ca.pem"))
	}
}
