package consul

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
)

// tokenFile is a file with an ACL token, which somebody may replace at any time.
type tokenFile struct {
	path string

	mu    sync.Mutex // never held during I/O
	token string     // as last read; "" if the file has been empty so far
}

// openTokenFile returns the token file at path. The error says why it cannot be read.
func openTokenFile(path string) (*tokenFile, error) {
	f := &tokenFile{path: path}
	token, err := f.read()
	if err != nil {
		return nil, fmt.Errorf("CONSUL_HTTP_TOKEN_FILE: %w", err)
	}
	f.token = token
	return f, nil
}

func (f *tokenFile) read() (string, error) {
	data, err := os.ReadFile(f.path)
	return strings.TrimSpace(string(data)), err
}

// current returns the token as last read; "" if f is nil.
func (f *tokenFile) current() string {
	if f == nil {
		return ""
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.token
}

// replacement returns the token of a file that does not have the token used any more. The
// old token stays in use while the file is missing or empty, as it may be for a moment when
// it is replaced.
func (f *tokenFile) replacement(used string) (token string, ok bool) {
	token, err := f.read()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil && token != "" {
		f.token = token
	}
	return f.token, f.token != used
}

// tokenTransport sends the token of a file with each request. When Consul denies a request,
// it reads the file again, and repeats the request if the file has another token.
type tokenTransport struct {
	next http.RoundTripper
	file *tokenFile
}

func (t tokenTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	used := t.file.current()
	rsp, err := t.next.RoundTrip(withToken(req, used))
	if err != nil || rsp.StatusCode != http.StatusForbidden {
		return rsp, err
	}
	token, ok := t.file.replacement(used)
	if !ok {
		return rsp, nil
	}
	again := withToken(req, token)
	if req.Body != nil {
		if req.GetBody == nil {
			return rsp, nil // the next request has the new token
		}
		if again.Body, err = req.GetBody(); err != nil {
			return rsp, nil
		}
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(rsp.Body, 4<<10)) // so that the connection is kept
	rsp.Body.Close()
	return t.next.RoundTrip(again)
}

// withToken returns a copy of req that carries token, or req's own if token is "".
func withToken(req *http.Request, token string) *http.Request {
	own := req.Clone(req.Context())
	if token != "" {
		own.Header.Set("X-Consul-Token", token)
	}
	return own
}
