package mtls

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc/credentials"
)

// ClientCredentials returns gRPC's credentials for TLS, whose errors say what to
// do about a server without TLS, and about one that refuses the client.
func ClientCredentials(config *tls.Config) credentials.TransportCredentials {
	return explainingCredentials{credentials.NewTLS(config)}
}

type explainingCredentials struct {
	credentials.TransportCredentials
}

func (t explainingCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := t.TransportCredentials.ClientHandshake(ctx, authority, raw)
	var notTLS tls.RecordHeaderError
	if errors.As(err, &notTLS) {
		err = fmt.Errorf("%w; the server has to be started with --tls_cert, --tls_key and --tls_ca", err)
	}
	if err != nil {
		return nil, nil, err
	}
	return alertConn{conn}, info, nil
}

func (t explainingCredentials) Clone() credentials.TransportCredentials {
	return explainingCredentials{t.TransportCredentials.Clone()}
}

// alertConn is a connection whose handshake is over for the client. In TLS 1.3 the
// server looks at the client's certificate only after that (RFC 8446, 2): a
// refusal is an alert in place of the first answer.
type alertConn struct{ net.Conn }

func (j alertConn) Read(b []byte) (int, error) {
	n, err := j.Conn.Read(b)
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" { // an alert, as crypto/tls tells it
		err = fmt.Errorf("the server refuses: %w; want a --tls_cert that a CA in the server's --tls_ca signed", err)
	}
	return n, err
}

// Write tells of the alert, if there was one, rather than that the server closed
// the connection after it.
func (j alertConn) Write(b []byte) (int, error) {
	n, err := j.Conn.Write(b)
	if err != nil {
		if _, alert := j.Read(make([]byte, 1)); alert != nil {
			err = alert
		}
	}
	return n, err
}
