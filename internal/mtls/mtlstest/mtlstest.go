// Package mtlstest creates throw-away certificates, for tests and for experiments with TLS.
package mtlstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// WriteFiles creates a CA and three certificates that the CA has signed, and writes them to dir.
// The files are ca.pem, srv.pem, srv-key.pem, client.pem, client-key.pem, consul.pem and
// consul-key.pem. The certificates are valid between the times from and until. WriteFiles creates
// dir if necessary, and replaces existing files. Only the owner of the files can read them.
//
// WriteFiles discards the key of the CA, so nobody can sign further certificates.
//
// The server's certificate is valid for the service go.micro.srv.basis, at any address. Consul's
// certificate is valid for localhost, 127.0.0.1 and ::1.
func WriteFiles(dir string, from, until time.Time) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	ca := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "throw-away CA of Basis"},
		NotBefore:             from,
		NotAfter:              until,
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if err := sign(filepath.Join(dir, "ca.pem"), ca, ca, caKey.Public(), caKey); err != nil {
		return err
	}
	for _, c := range []struct {
		name  string
		names []string
		ips   []net.IP
	}{
		{"srv", []string{"go.micro.srv.basis"}, nil},
		{"client", []string{"go.micro.client.basis"}, nil},
		{"consul", []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}},
	} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		if err := write(filepath.Join(dir, c.name+"-key.pem"), "PRIVATE KEY", der); err != nil {
			return err
		}
		leaf := &x509.Certificate{
			Subject:     pkix.Name{CommonName: c.name},
			NotBefore:   from,
			NotAfter:    until,
			DNSNames:    c.names,
			IPAddresses: c.ips,
			KeyUsage:    x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
		if err := sign(filepath.Join(dir, c.name+".pem"), leaf, ca, key.Public(), caKey); err != nil {
			return err
		}
	}
	return nil
}

// sign creates a certificate for key from template, and signs the certificate with parentKey, the
// key of parent. It writes the certificate to path.
func sign(path string, template, parent *x509.Certificate, key crypto.PublicKey, parentKey crypto.Signer) error {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, parentKey)
	if err != nil {
		return fmt.Errorf("certificate %s: %w", path, err)
	}
	return write(path, "CERTIFICATE", der)
}

// write writes der to path as a PEM block of the given kind.
func write(path, kind string, der []byte) error {
	// Remove an existing file: os.WriteFile would not change the mode of this file.
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
