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

// These limits protect the registry from a catalog to which anybody may write. A node of go-micro
// has about 500 bytes of tags, so the limits allow tens of thousands of nodes.
const (
	maxAnswer   = 64 << 20 // bytes in one response of Consul
	maxNodeTags = 64 << 10 // bytes in the tags of one node, after decompression
	maxTags     = 16 << 20 // bytes in all tags of one response, after decompression
	maxNotes    = 100      // lines in the log about ignored nodes and tags
)

// catalogTransport removes nodes and tags from a list of a service's nodes if they would make
// go-micro's registry panic, use too much memory, or return a node without a valid address.
//
// Other tools may write such nodes and tags to a shared catalog. go-micro's registry decodes all
// tags that begin with e, t or v, without a check.
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

// entry has the fields of a node that go-micro's registry reads.
type entry struct {
	Node    struct{ Address string }
	Service struct {
		ID, Service, Address string
		Port                 int
		Tags                 []string
	}
	Checks []struct{ Status string }
}

// address returns the host:port of the node. It returns an error if the host or the port is not
// valid.
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

// critical reports whether a check of the node is critical. go-micro's registry then leaves the
// node out.
func (e *entry) critical() bool {
	return slices.ContainsFunc(e.Checks, func(c struct{ Status string }) bool { return c.Status == "critical" })
}

// clean removes nodes and tags that go-micro's registry must not decode from body, and returns the
// result. body is a JSON list of a service's nodes. If body is not a list, clean returns body
// unchanged: go-micro's registry then returns the error of the decoder.
func (t catalogTransport) clean(service string, body []byte) []byte {
	var raw []json.RawMessage
	if err := json.Unmarshal(body, &raw); err != nil {
		return body
	}
	cleaned := []*entry{}              // encoded as [] if empty; nil would be encoded as null
	addresses := map[string][]string{} // by node ID
	tags := tagReader{left: maxTags, sizes: map[string]tagSize{}}
	for _, r := range raw {
		e := new(entry)
		if err := json.Unmarshal(r, e); err != nil {
			t.notes.add("Ignoring a node of %s in Consul: %v", service, err)
			continue
		}
		if e.Service.Service != service {
			continue // go-micro's registry skips such nodes too
		}
		id := e.Service.ID
		if !e.critical() {
			address, err := e.address()
			if err != nil {
				t.notes.add("Ignoring the node %s of %s in Consul: %v", excerpt(id), service, err)
				continue
			}
			// A node's ID is unique at one agent only, but callers distinguish nodes by their IDs.
			// So add the address to the ID if another node has the same ID. If the address is also
			// the same, the entries are one node, which may have moved from one agent to another:
			// list this node once.
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

// excerpt returns the first 60 bytes of text for the log. It quotes the text, because other tools
// may have written the text.
func excerpt(text string) string {
	if len(text) > 60 {
		text = text[:60] + "..."
	}
	return fmt.Sprintf("%q", text)
}

// tagReader finds the tags that go-micro's registry can decode.
type tagReader struct {
	left  int                // how many more bytes of tags are allowed, after decompression
	sizes map[string]tagSize // a cache, by tag: most nodes of a service have the same tags
}

// tagSize is a result of decodedSize.
type tagSize struct {
	bytes int
	err   error
}

// errForeign reports that a tag is not one of go-micro's. Such tags are not logged.
var errForeign = errors.New("not a tag of go-micro's")

// decodable returns the tags of one node that go-micro's registry can decode. It calls report for
// each tag that it leaves out, but not for tags of other tools (errForeign).
func (t *tagReader) decodable(tags []string, report func(tag string, err error)) []string {
	left := maxNodeTags
	kept := []string{}
	for _, tag := range tags {
		size, known := t.sizes[tag]
		if !known {
			limit := min(maxNodeTags, t.left)
			size.bytes, size.err = decodedSize(tag, limit)
			if errors.Is(size.err, errTooLarge) {
				t.left -= limit // limit bytes were decompressed
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

// errTooLarge reports that a tag exceeds a limit, alone or together with earlier tags.
var errTooLarge = fmt.Errorf("the tags of a node may have %d KB, and those of a service %d MB", maxNodeTags>>10, maxTags>>20)

// decodedSize returns the size of tag in bytes after go-micro's decoding. It returns errForeign if
// tag is not one of go-micro's, errTooLarge if the size exceeds limit, and other errors if tag
// cannot be decoded.
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
		if endpoint == nil { // go-micro would dereference it
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

// inflate decodes and decompresses text, which is in go-micro's encoding of tags. It returns
// errTooLarge if the result has more than limit bytes.
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

// notes logs lines about a catalog: each line once, and at most maxNotes lines. The catalog is read
// again and again, so the same line would repeat. Other tools write the catalog, so there may be
// many different lines.
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
