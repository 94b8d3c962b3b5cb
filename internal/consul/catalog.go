package consul

import (
	"bytes"
	"compress/zlib"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/util/log"
)

// Limits of what the registry takes from a catalog, to which anybody may write. A node of
// go-micro's has some 500 bytes of tags, so the limits hold for tens of thousands of nodes.
const (
	maxAnswer   = 64 << 20 // bytes of one answer of Consul
	maxNodeTags = 64 << 10 // bytes that the tags of one node may inflate to
	maxTags     = 16 << 20 // bytes that all tags of one answer may inflate to
	maxNotes    = 100      // lines in the log about what is ignored
)

// catalogTransport removes from the nodes of a service what would make go-micro's registry
// panic, grow without bound, or return a node that cannot be called. A catalog may be
// shared with other tools: go-micro's registry takes all tags that begin with e, t or v for
// its own, and decodes them unchecked.
type catalogTransport struct {
	next  http.RoundTripper
	notes *notes
}

func (t catalogTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	rsp, err := t.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	rsp.Body = http.MaxBytesReader(nil, rsp.Body, maxAnswer)
	service, ok := strings.CutPrefix(req.URL.Path, "/v1/health/service/")
	if !ok || rsp.StatusCode != http.StatusOK {
		return rsp, nil
	}
	body, err := io.ReadAll(rsp.Body)
	rsp.Body.Close()
	if err != nil {
		return nil, fmt.Errorf("reading the nodes of %s: %w", service, err)
	}
	rsp.Body = io.NopCloser(bytes.NewReader(t.clean(service, body)))
	rsp.ContentLength = -1
	rsp.Header.Del("Content-Length")
	return rsp, nil
}

// entry is what go-micro's registry reads of one node of a service.
type entry struct {
	Node    struct{ Address string }
	Service struct {
		ID, Service, Address string
		Port                 int
		Tags                 []string
	}
	Checks []struct{ Status string }
}

// address returns the address of the node, or why it cannot be called.
func (e *entry) address() (string, error) {
	host := e.Service.Address
	if host == "" {
		host = e.Node.Address
	}
	if err := checkHost(strings.Trim(host, "[]")); err != nil {
		return "", fmt.Errorf("address %w", err)
	}
	if e.Service.Port < 1 || e.Service.Port > 65535 {
		return "", fmt.Errorf("port %d is not from 1 to 65535", e.Service.Port)
	}
	return fmt.Sprintf("%s:%d", host, e.Service.Port), nil
}

// critical reports whether go-micro's registry leaves the node out.
func (e *entry) critical() bool {
	return slices.ContainsFunc(e.Checks, func(c struct{ Status string }) bool { return c.Status == "critical" })
}

// clean returns an answer of Consul without what is not to be decoded. It returns body
// itself if that is no list of nodes; decoding it then says what it is.
func (t catalogTransport) clean(service string, body []byte) []byte {
	var raw []json.RawMessage
	if err := json.Unmarshal(body, &raw); err != nil {
		return body
	}
	cleaned := []*entry{}              // never null
	addresses := map[string][]string{} // by the ID of a node
	tags := tagReader{left: maxTags, sizes: map[string]tagSize{}}
	for _, r := range raw {
		e := new(entry)
		if err := json.Unmarshal(r, e); err != nil {
			t.notes.add("Ignoring a node of %s in Consul: %v", service, err)
			continue
		}
		if e.Service.Service != service {
			continue // as go-micro's registry does
		}
		id := e.Service.ID
		if !e.critical() {
			address, err := e.address()
			if err != nil {
				t.notes.add("Ignoring the node %s of %s in Consul: %v", excerpt(id), service, err)
				continue
			}
			// IDs are unique at one agent only, and callers tell nodes apart by IDs. A server
			// that has moved from one agent to another may be registered at both.
			others := addresses[id]
			if slices.Contains(others, address) {
				continue
			}
			if len(others) > 0 {
				e.Service.ID += "@" + address
			}
			addresses[id] = append(others, address)
		}
		e.Service.Tags = tags.decodable(e.Service.Tags, func(tag string, err error) {
			t.notes.add("Ignoring the tag %s of the node %s of %s in Consul: %v", excerpt(tag), excerpt(id), service, err)
		})
		cleaned = append(cleaned, e)
	}
	out, err := json.Marshal(cleaned)
	if err != nil {
		return body
	}
	return out
}

// excerpt returns the beginning of a text of others, quoted.
func excerpt(text string) string {
	if len(text) > 60 {
		text = text[:60] + "..."
	}
	return fmt.Sprintf("%q", text)
}

// tagReader finds the tags that go-micro's registry can decode.
type tagReader struct {
	left  int                // bytes that further tags may inflate to
	sizes map[string]tagSize // by tag: most nodes of a service have the same tags
}

type tagSize struct {
	bytes int
	err   error
}

// errForeign says that a tag is not one of go-micro's. It is not worth a line in the log.
var errForeign = errors.New("not a tag of go-micro's")

// decodable returns those of a node's tags that go-micro's registry can decode. It reports
// the others, but for tags that only begin with the same letter as go-micro's.
func (t *tagReader) decodable(tags []string, report func(tag string, err error)) []string {
	left := maxNodeTags
	kept := []string{}
	for _, tag := range tags {
		size, known := t.sizes[tag]
		if !known {
			limit := min(maxNodeTags, t.left)
			size.bytes, size.err = decodedSize(tag, limit)
			if errors.Is(size.err, errTooLarge) {
				t.left -= limit // inflating it took as long
			}
			t.sizes[tag] = size
		}
		if size.err == nil && size.bytes > min(left, t.left) {
			size.err = errTooLarge
		}
		switch {
		case size.err == nil:
			left -= size.bytes
			t.left -= size.bytes
			kept = append(kept, tag)
		case size.err != errForeign:
			report(tag, size.err)
		}
	}
	return kept
}

// errTooLarge says that a tag, or the tags before it, are too large.
var errTooLarge = fmt.Errorf("the tags of a node may have %d KB, and those of a service %d MB", maxNodeTags>>10, maxTags>>20)

// decodedSize returns how many bytes go-micro's registry decodes tag to. The error says why
// the tag is not to be decoded.
func decodedSize(tag string, limit int) (int, error) {
	if len(tag) < 2 || !strings.Contains("etv", tag[:1]) || !strings.Contains("-=", tag[1:2]) {
		return 0, errForeign
	}
	data := []byte(tag[2:])
	if tag[1] == '-' {
		var err error
		if data, err = inflate(tag[2:], limit); err != nil {
			return 0, err
		}
	}
	if len(data) > limit {
		return 0, errTooLarge
	}
	switch tag[0] {
	case 'e':
		var endpoint *registry.Endpoint
		if err := json.Unmarshal(data, &endpoint); err != nil {
			return 0, err
		}
		if endpoint == nil { // go-micro would use it
			return 0, errors.New("no endpoint")
		}
	case 't':
		var metadata map[string]string
		if err := json.Unmarshal(data, &metadata); err != nil {
			return 0, err
		}
	}
	return len(data), nil
}

// inflate undoes go-micro's encoding, up to limit bytes.
func inflate(text string, limit int) ([]byte, error) {
	compressed, err := hex.DecodeString(text)
	if err != nil {
		return nil, err
	}
	r, err := zlib.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err == nil && len(data) > limit {
		err = errTooLarge
	}
	return data, err
}

// notes are lines in the log about a catalog. Each is logged once, and no more than
// maxNotes: the catalog is read again and again, and others write it.
type notes struct {
	mu    sync.Mutex
	lines map[string]bool
}

func (n *notes) add(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lines[line] || len(n.lines) >= maxNotes {
		return
	}
	if n.lines == nil {
		n.lines = map[string]bool{}
	}
	n.lines[line] = true
	if len(n.lines) == maxNotes {
		line += "; further such lines are left out"
	}
	log.Log(line)
}
