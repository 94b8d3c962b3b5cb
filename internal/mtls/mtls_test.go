package mtls

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/internal/mtls/mtlstest"
)

func TestCheck(t *testing.T) {
	for _, test := range []struct {
		files          Files
		implementation string
		want           string
	}{
		{Files{}, "grpc", ""},
		{Files{}, "rpc", ""},
		{Files{"c", "k", "a"}, "grpc", ""},
		{Files{Cert: "c"}, "grpc", "--tls_cert without --tls_key and --tls_ca; want all three or none"},
		{Files{Cert: "c", CA: "a"}, "grpc", "--tls_cert and --tls_ca without --tls_key; want all three or none"},
		{Files{Key: "k"}, "grpc", "--tls_key without --tls_cert and --tls_ca; want all three or none"},
		{Files{"c", "k", "a"}, "rpc", "--tls_cert is for gRPC only, not for rpc; leave out --server and --client"},
		{Files{"c", "-----BEGIN PRIVATE KEY-----\nsecret", "a"}, "grpc", "--tls_key holds the PEM text itself; want the path of a file with it"},
	} {
		err := test.files.Check(test.implementation)
		if test.want == "" {
			require.NoError(t, err, "%+v", test)
		} else {
			require.EqualError(t, err, test.want)
		}
	}
}

func TestConfig(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	for name, from := range map[string]time.Duration{"good": -time.Hour, "other": -time.Hour, "old": -24 * time.Hour, "early": time.Hour} {
		require.NoError(t, mtlstest.WriteFiles(filepath.Join(dir, name), now.Add(from), now.Add(from+2*time.Hour)))
	}
	file := func(path string) string { return filepath.Join(dir, path) }
	rotated := file("rotated.pem")
	var bundle []byte
	for _, path := range []string{"old/ca.pem", "good/ca.pem"} {
		b, err := os.ReadFile(file(path))
		require.NoError(t, err)
		bundle = append(bundle, b...)
	}
	require.NoError(t, os.WriteFile(rotated, bundle, 0o600))
	require.NoError(t, os.WriteFile(file("empty.pem"), nil, 0o600))
	require.NoError(t, os.WriteFile(file("broken.pem"), []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), 0o600))

	for _, test := range []struct {
		name          string
		cert, key, ca string
		want          []string // texts in the error; nil if there is no error
	}{
		{"right", "good/srv.pem", "good/srv-key.pem", "good/ca.pem", nil},
		{"one of the CAs has expired", "good/srv.pem", "good/srv-key.pem", "rotated.pem", nil},
		{"no certificate file", "no.pem", "good/srv-key.pem", "good/ca.pem", []string{"no.pem", "no such file"}},
		{"no key file", "good/srv.pem", "no.pem", "good/ca.pem", []string{"no.pem", "no such file"}},
		{"no CA file", "good/srv.pem", "good/srv-key.pem", "no.pem", []string{"--tls_ca", "no.pem", "no such file"}},
		{"another's key", "good/srv.pem", "other/srv-key.pem", "good/ca.pem", []string{"good/srv.pem", "other/srv-key.pem", "does not match"}},
		{"key for certificate", "good/srv-key.pem", "good/srv-key.pem", "good/ca.pem", []string{"good/srv-key.pem"}},
		{"expired", "old/srv.pem", "old/srv-key.pem", "good/ca.pem", []string{"--tls_cert", "old/srv.pem", "expired on"}},
		{"early", "early/srv.pem", "early/srv-key.pem", "good/ca.pem", []string{"--tls_cert", "early/srv.pem", "not valid before"}},
		{"expired CA", "good/srv.pem", "good/srv-key.pem", "old/ca.pem", []string{"--tls_ca", "old/ca.pem", "expired on"}},
		{"empty CA", "good/srv.pem", "good/srv-key.pem", "empty.pem", []string{"--tls_ca", "empty.pem", "no certificate in it"}},
		{"key for CA", "good/srv.pem", "good/srv-key.pem", "good/srv-key.pem", []string{"--tls_ca", "good/srv-key.pem", "no certificate in it"}},
		{"broken CA", "good/srv.pem", "good/srv-key.pem", "broken.pem", []string{"--tls_ca", "broken.pem", "x509"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			files := Files{file(test.cert), file(test.key), file(test.ca)}
			config, err := files.Config("name")
			if test.want == nil {
				require.NoError(t, err)
				require.NotNil(t, config)
			}
			for _, want := range test.want {
				require.ErrorContains(t, err, want)
			}
		})
	}

	config, err := (&Files{}).Config("name")
	require.NoError(t, err)
	require.Nil(t, config)
}
