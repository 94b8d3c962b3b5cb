package mtls

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc/credentials"
)

// ClientCredentials returns gRPC's TLS credentials for a client with config. If the server has no
// TLS, or rejects the client's certificate, the error says what to do.
func ClientCredentials(config *tls.Config) credentials.TransportCredentials {
	return explainingCredentials{credentials.NewTLS(config)}
}

// explainingCredentials are the credentials that ClientCredentials returns.
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

// alertConn is a connection after the client's handshake. In TLS 1.3, the server checks the
// client's certificate only after the client's handshake has ended (RFC 8446, section 2). If the
// server rejects the certificate, the client reads an alert in place of the first response.
// alertConn explains this alert.
type alertConn struct{ net.Conn }

func (j alertConn) Read(b []byte) (int, error) {
	n, err := j.Conn.Read(b)
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" { // an alert of the server, from crypto/tls
		err = fmt.Errorf("the server refuses: %w; want a --tls_cert that a CA in the server's --tls_ca signed", err)
	}
	return n, err
}

// Write writes b to the connection. If this fails, Write reads from the connection, and returns the
// error of the read if there is one. The reason is that a server sends an alert and then closes the
// connection. The read returns the alert. The write only returns that the connection is closed.
func (j alertConn) Write(b []byte) (int, error) {
	n, err := j.Conn.Write(b)
	if err != nil {
		if _, alert := j.Read(make([]byte, 1)); alert != nil {
			err = alert
		}
	}
	return n, err
}
