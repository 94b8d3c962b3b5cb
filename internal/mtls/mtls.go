// Package mtls has the flags and the files for mutual TLS, with which srv and client authenticate
// each other.
package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/micro/cli"
)

// Files are the paths of the PEM files for mutual TLS. If all paths are empty, TLS is off.
type Files struct {
	Cert string // the program's certificate, followed by any intermediate certificates
	Key  string // the private key of the certificate
	CA   string // the CAs; one of them must have signed the other side's certificate
}

// Flags returns the flags --tls_cert, --tls_key and --tls_ca, which set f.
func (f *Files) Flags() []cli.Flag {
	return []cli.Flag{
		cli.StringFlag{
			Name: "tls_cert", EnvVar: "BASIS_TLS_CERT", Destination: &f.Cert,
			Usage: "PEM file with this program's certificate. --tls_cert, --tls_key and --tls_ca together enable mutual TLS",
		},
		cli.StringFlag{
			Name: "tls_key", EnvVar: "BASIS_TLS_KEY", Destination: &f.Key,
			Usage: "PEM file with the certificate's private key",
		},
		cli.StringFlag{
			Name: "tls_ca", EnvVar: "BASIS_TLS_CA", Destination: &f.CA,
			Usage: "PEM file with the CAs that are trusted to sign the peer's certificate",
		},
	}
}

// Check returns an error in three cases: only some of the files are set, a setting is PEM text and
// not a path, or the files are set and implementation is not "grpc". implementation is the name of
// go-micro's server or client in use; all implementations but "grpc" ignore the files. Check does
// not read the files.
func (f *Files) Check(implementation string) error {
	var given, missing []string
	for _, file := range []struct{ flag, path string }{
		{"--tls_cert", f.Cert}, {"--tls_key", f.Key}, {"--tls_ca", f.CA},
	} {
		if strings.Contains(file.path, "-----BEGIN") { // may be a private key, so do not quote it
			return fmt.Errorf("%s holds the PEM text itself; want the path of a file with it", file.flag)
		}
		if file.path == "" {
			missing = append(missing, file.flag)
		} else {
			given = append(given, file.flag)
		}
	}
	if len(given) == 0 {
		return nil
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s without %s; want all three or none", strings.Join(given, " and "), strings.Join(missing, " and "))
	}
	if implementation != "grpc" {
		return fmt.Errorf("%s is for gRPC only, not for %s; leave out --server and --client", given[0], implementation)
	}
	return nil
}

// Config reads the files and returns a TLS configuration for a server or a client. If TLS is off,
// Config returns nil.
//
// The configuration requires TLS 1.2 or later. Both sides must have a certificate that one of the
// CAs has signed. The server's certificate must be valid for serverName, a DNS name. Later changes
// of the files have no effect.
//
// If a file cannot be used, Config returns an error with the name of the file. Config also returns
// an error if the program's certificate has expired or is not valid yet. At least one of the CAs
// must be valid at this time.
func (f *Files) Config(serverName string) (*tls.Config, error) {
	if f.Cert == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("--tls_cert %s with --tls_key %s: %w", f.Cert, f.Key, err)
	}
	if err := checkTime(pair.Leaf); err != nil {
		return nil, fmt.Errorf("--tls_cert %s: %w", f.Cert, err)
	}
	cas, err := readCAs(f.CA)
	if err != nil {
		return nil, fmt.Errorf("--tls_ca %s: %w", f.CA, err)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{pair},
		ServerName:   serverName,
		RootCAs:      cas,
		ClientCAs:    cas,
		ClientAuth:   tls.RequireAndVerifyClientCert,
	}, nil
}

// readCAs returns the certificates in the file at path. It returns an error if a certificate cannot
// be parsed, or if the file has no certificate that is valid at this time. Expired certificates
// next to a valid certificate are no error: while an operator replaces a CA, the file has the old
// CA and the new CA.
func readCAs(path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool, valid := x509.NewCertPool(), false
	wrong := errors.New("no certificate in it; want PEM")
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		ca, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		pool.AddCert(ca)
		wrong = checkTime(ca)
		valid = valid || wrong == nil
	}
	if !valid {
		return nil, wrong
	}
	return pool, nil
}

// checkTime returns an error if c has expired or is not valid yet.
func checkTime(c *x509.Certificate) error {
	switch now := time.Now(); {
	case now.Before(c.NotBefore):
		return fmt.Errorf("not valid before %s; now it is %s", c.NotBefore.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case now.After(c.NotAfter):
		return fmt.Errorf("expired on %s; now it is %s", c.NotAfter.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}
