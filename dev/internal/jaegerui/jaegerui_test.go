package jaegerui_test

import (
	"bytes"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pages "github.com/tonistiigi/jaeger-ui-rest"

	"github.com/gomicroexample/basis/dev/internal/jaegerui"
)

// files returns the paths below dir.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all = append(all, path)
		}
		return err
	}))
	return all
}

func TestVersionIsThatOfTheModule(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tonistiigi/jaeger-ui-rest").Output()
	require.NoError(t, err)
	dockerfile, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "Dockerfile"))
	require.NoError(t, err)
	require.Contains(t, string(dockerfile), "JAEGERUI_VERSION=v"+jaegerui.Version+"\n")
}

func TestUnpackedPagesAreThoseThatJaegerFillsIn(t *testing.T) {
	parent := t.TempDir()
	dir, err := jaegerui.Unpack(parent)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(parent, "jaeger-ui-"+jaegerui.Version), dir)
	index, err := os.ReadFile(filepath.Join(dir, "index.html"))
	require.NoError(t, err)
	// Jaeger replaces these lines to set the configuration, the storage's capabilities, the
	// version, and the base of all links.
	for _, line := range []string{
		"const JAEGER_CONFIG = DEFAULT_CONFIG;",
		"const JAEGER_STORAGE_CAPABILITIES = DEFAULT_STORAGE_CAPABILITIES;",
		"const JAEGER_VERSION = DEFAULT_VERSION;",
		`<base href="/"`,
	} {
		require.Contains(t, string(index), line)
	}
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()
	require.NoError(t, jaegerui.Check(t.Context(), server.URL))
}

func TestFilesThatAreMissingOrBrokenAreUnpackedAgain(t *testing.T) {
	parent := t.TempDir()
	dir, err := jaegerui.Unpack(parent)
	require.NoError(t, err)
	want := map[string]string{}
	for _, path := range files(t, dir) {
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		want[path] = string(content)
	}
	require.Len(t, want, 5)
	for path, content := range want {
		for what, spoil := range map[string]func() error{
			"missing":   func() error { return os.Remove(path) },
			"empty":     func() error { return os.Truncate(path, 0) },
			"truncated": func() error { return os.Truncate(path, int64(len(content)/2)) },
		} {
			before, err := os.Stat(filepath.Join(dir, "static"))
			require.NoError(t, err)
			require.NoError(t, spoil())
			_, err = jaegerui.Unpack(parent)
			require.NoError(t, err)
			got, err := os.ReadFile(path)
			require.NoError(t, err)
			require.True(t, string(got) == content, "%s was %s", path, what)
			require.Len(t, files(t, dir), len(want), "the folder must have no unfinished files")
			after, err := os.Stat(filepath.Join(dir, "static"))
			require.NoError(t, err)
			require.True(t, os.SameFile(before, after), "a running Jaeger must still serve this folder")
		}
	}
}

func TestAFolderThatCannotBeMadeIsSaid(t *testing.T) {
	parent := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(parent, nil, 0o644))
	_, err := jaegerui.Unpack(parent)
	require.ErrorContains(t, err, "unpacking the pages of Jaeger's UI "+jaegerui.Version+" into "+filepath.Join(parent, "jaeger-ui-"+jaegerui.Version)+": mkdir ")
}

func TestCheckTellsWhatWouldBeABlankPage(t *testing.T) {
	for what, test := range map[string]struct {
		serve func(dir string) http.Handler
		err   string
	}{
		"placeholder": {func(string) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<h1>not the UI</h1>")) })
		}, "/ is not Jaeger's UI but a placeholder: the page loads no script"},
		"no page": {func(string) http.Handler { return http.NotFoundHandler() }, "no page of Jaeger's UI: GET "},
		"missing": {func(dir string) http.Handler {
			require.NoError(t, os.RemoveAll(filepath.Join(dir, "static")))
			return http.FileServer(http.Dir(dir))
		}, ": 404 Not Found; \"make tools\" unpacks the files again"},
		"empty": {func(dir string) http.Handler {
			for _, path := range files(t, filepath.Join(dir, "static")) {
				require.NoError(t, os.Truncate(path, 0))
			}
			return http.FileServer(http.Dir(dir))
		}, ": no content; \"make tools\" unpacks the files again"},
	} {
		t.Run(what, func(t *testing.T) {
			dir, err := jaegerui.Unpack(t.TempDir())
			require.NoError(t, err)
			server := httptest.NewServer(test.serve(dir))
			defer server.Close()
			require.ErrorContains(t, jaegerui.Check(t.Context(), server.URL), test.err)
		})
	}
}

func TestHandlerServesThePageForEachPathOfTheUI(t *testing.T) {
	server := httptest.NewServer(jaegerui.Handler(pages.Menu{Label: "a menu", Items: []pages.MenuItem{{Label: "an item", URL: "http://192.0.2.1/"}}}))
	defer server.Close()
	require.NoError(t, jaegerui.Check(t.Context(), server.URL))
	for path, status := range map[string]int{
		"/": 200, "/search?service=x": 200, "/trace/1": 200, "/dependencies": 200, "/static/none.js": 404,
	} {
		rsp, err := http.Get(server.URL + path)
		require.NoError(t, err)
		body, err := io.ReadAll(rsp.Body)
		require.NoError(t, err)
		rsp.Body.Close()
		require.Equal(t, status, rsp.StatusCode, path)
		require.Equal(t, status == 200, bytes.Contains(body, []byte(`{"label":"an item","url":"http://192.0.2.1/"}`)), path)
	}
}
