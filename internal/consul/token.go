package consul

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
)

// tokenFile is a file with an ACL token. An operator may replace the token at any time.
type tokenFile struct {
	path string

	mu    sync.Mutex // never held during I/O
	token string     // the token that was read last; "" if the file has been empty so far
}

// openTokenFile returns the token file at path. It returns an error if the file cannot be read.
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

// current returns the token that was read last, or "" if f is nil. It does not read the file.
func (f *tokenFile) current() string {
	if f == nil {
		return ""
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.token
}

// replacement reads the file again. It returns the current token. ok reports whether this token
// differs from used, the token of a denied request. If the file is missing or empty, the old token
// stays in use: while an operator replaces the file, the file may be missing or empty for a moment.
func (f *tokenFile) replacement(used string) (token string, ok bool) {
	token, err := f.read()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil && token != "" {
		f.token = token
	}
	return f.token, f.token != used
}

// tokenTransport adds the token of a file to each request. When Consul denies a request,
// tokenTransport reads the file again. If the file has a new token, tokenTransport repeats the
// request.
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
			return rsp, nil // this request cannot be repeated; the next request has the new token
		}
		if again.Body, err = req.GetBody(); err != nil {
			return rsp, nil
		}
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(rsp.Body, 4<<10)) // returns the connection to the pool
	rsp.Body.Close()
	return t.next.RoundTrip(again)
}

// withToken returns a copy of req with token. If token is "", the copy keeps the token of req.
func withToken(req *http.Request, token string) *http.Request {
	own := req.Clone(req.Context())
	if token != "" {
		own.Header.Set("X-Consul-Token", token)
	}
	return own
}
