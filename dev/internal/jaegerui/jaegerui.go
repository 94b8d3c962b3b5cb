// Package jaegerui provides the pages of Jaeger's UI. A Jaeger that is built from its Go module
// lacks these pages. The module github.com/tonistiigi/jaeger-ui-rest contains the built pages.
package jaegerui

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	pages "github.com/tonistiigi/jaeger-ui-rest"
)

// Version is the version of the UI that the module jaeger-ui-rest contains. The module's Dockerfile
// has this version.
const Version = "1.68.0"

// configLine is the line of index.html that Jaeger replaces by its settings. The module replaces
// this line too, so the function all restores the line.
const configLine = "const JAEGER_CONFIG = DEFAULT_CONFIG;"

const index = "index.html"

// Unpack writes the pages into the folder jaeger-ui-VERSION in dir, and returns the folder's path,
// which is the value for Jaeger's setting assets_path. It writes a file only if the file is missing
// in the folder or differs. It writes each file under a temporary name and then renames it, so a
// running Jaeger never serves an incomplete file.
func Unpack(dir string) (string, error) {
	dir = filepath.Join(dir, "jaeger-ui-"+Version)
	if err := unpack(dir); err != nil {
		return "", fmt.Errorf("unpacking the pages of Jaeger's UI %s into %s: %w", Version, dir, err)
	}
	return dir, nil
}

func unpack(dir string) error {
	files, err := all()
	if err != nil {
		return err
	}
	for name, content := range files {
		to := filepath.Join(dir, filepath.FromSlash(name))
		if there, err := os.ReadFile(to); err == nil && bytes.Equal(there, content) {
			continue
		}
		if err := write(to, content); err != nil {
			return err
		}
	}
	return nil
}

// write replaces the file at path. All users can read the new file, because Jaeger can run as
// another user.
func write(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".unfinished-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails after the rename
	_, err = f.Write(content)
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// all returns the content of each file of the UI, by path. It decompresses the files only once,
// because decompression takes a second under the race detector.
var all = sync.OnceValues(func() (map[string][]byte, error) {
	const anyConfig = "const JAEGER_CONFIG = "
	var config pages.Config
	filled, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	if err := walk(pages.FS(config), "/", files); err != nil {
		return nil, fmt.Errorf("reading the pages in the module: %w", err)
	}
	files[index] = bytes.Replace(files[index], []byte(anyConfig+string(filled)+";"), []byte(configLine), 1)
	if !bytes.Contains(files[index], []byte(configLine)) {
		return nil, fmt.Errorf("the module's %s lacks the line %q, which Jaeger replaces by its settings", index, configLine)
	}
	for _, name := range named(files[index]) {
		if len(files[name]) == 0 {
			return nil, fmt.Errorf("the module lacks %s, which its %s loads", name, index)
		}
	}
	return files, nil
})

// walk adds the files in and below dir to files.
func walk(from http.FileSystem, dir string, files map[string][]byte) error {
	d, err := from.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	entries, err := d.Readdir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		if e.IsDir() {
			if err := walk(from, name, files); err != nil {
				return err
			}
			continue
		}
		f, err := from.Open(name)
		if err != nil {
			return err
		}
		content, err := io.ReadAll(f)
		f.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		files[name[1:]] = content
	}
	return nil
}

// asset matches the files that a current browser loads for a page: scripts of type module, style
// sheets and icons. jaeger-ui-rest does not contain the scripts for older browsers.
var asset = regexp.MustCompile(`<(?:script type="module"|link) [^>]*(?:src|href)="\./([^"]+)"`)

// named returns the paths of the files that a page loads.
func named(page []byte) []string {
	var names []string
	for _, m := range asset.FindAllSubmatch(page, -1) {
		names = append(names, string(m[1]))
	}
	return names
}

// Check returns an error unless the Jaeger at url serves the UI: a page, and each file that the
// page loads. Without one of these files, a browser would show a blank page. The url has no slash
// at the end.
func Check(ctx context.Context, url string) error {
	page, err := get(ctx, url+"/")
	if err != nil {
		return fmt.Errorf("no page of Jaeger's UI: %w", err)
	}
	names := named(page)
	if len(names) == 0 {
		return fmt.Errorf("%s/ is not Jaeger's UI but a placeholder: the page loads no script; give Jaeger the pages with assets_path, as dev/internal/backend/jaeger.yaml does", url)
	}
	for _, name := range names {
		if _, err := get(ctx, url+"/"+name); err != nil {
			return fmt.Errorf("the UI of the Jaeger at %s would be a blank page, since a file of it is missing or broken: %w; %q unpacks the files again", url, err, "make tools")
		}
	}
	return nil
}

// timeout is the time limit for one file.
const timeout = 10 * time.Second

// get returns the content at url. Empty content is an error.
func get(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	rsp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer rsp.Body.Close()
	content, err := io.ReadAll(rsp.Body)
	switch {
	case err != nil:
		return nil, fmt.Errorf("GET %s: %w", url, err)
	case rsp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("GET %s: %s", url, rsp.Status)
	case len(content) == 0:
		return nil, fmt.Errorf("GET %s: no content", url)
	}
	return content, nil
}

// Handler returns a handler that serves the pages, with menu in addition to the UI's own menu. The
// UI's own menu does not show the page Monitor, because this page needs metrics, not only traces.
// The handler serves index.html for a path that names no file, because the UI itself handles paths
// such as /trace/ID. For a path in the directory /static that names no file, it returns the status
// 404.
func Handler(menu pages.Menu) http.Handler {
	config := pages.Config{Menu: []pages.Menu{menu}}
	config.Dependencies.MenuEnabled = true
	files := pages.FS(config)
	server := http.FileServer(files)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, err := files.Open(path.Clean("/" + r.URL.Path))
		switch {
		case err == nil:
			f.Close()
		case errors.Is(err, fs.ErrNotExist) && path.Dir(r.URL.Path) != "/static":
			r = r.Clone(r.Context())
			r.URL.Path = "/"
		}
		server.ServeHTTP(w, r)
	})
}
