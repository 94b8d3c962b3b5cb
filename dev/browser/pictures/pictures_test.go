package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"flag"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/dev/browser"
	"github.com/gomicroexample/basis/dev/internal/binaries"
	"github.com/gomicroexample/basis/dev/internal/project"
)

// required is the flag -required. With this flag, the test fails if Chromium, Consul or Jaeger is
// missing. Without the flag, the test is skipped.
var required = flag.Bool("required", false, "fail where Chromium, Consul or Jaeger is missing, instead of skipping tests")

// docs/pictures has the pictures that the command takes, and no other pictures.
func TestTake(t *testing.T) {
	root, err := project.Root()
	require.NoError(t, err)
	dir := t.TempDir()
	err = take(context.Background(), root, dir)
	if (errors.Is(err, browser.ErrMissing) || errors.Is(err, binaries.ErrMissing)) && !*required {
		t.Skip(err)
	}
	require.NoError(t, err)
	taken := names(t, dir)
	require.Equal(t, names(t, filepath.Join(root, "docs", "pictures")), taken)
	for _, name := range taken {
		content, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.LessOrEqual(t, len(content), maxSize, name)
		if strings.HasSuffix(name, ".png") {
			picture, err := png.Decode(bytes.NewReader(content))
			require.NoError(t, err, name)
			require.Equal(t, width, picture.Bounds().Dx(), name)
			continue
		}
		text := textOf(t, content)
		require.Contains(t, text, "Every step showed what it announced.")
		require.NotContains(t, text, os.TempDir())
	}
}

func names(t *testing.T, dir string) []string {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// textOf returns the text in an SVG, with a line for each text element.
func textOf(t *testing.T, svg []byte) string {
	var lines []string
	for in := xml.NewDecoder(bytes.NewReader(svg)); ; {
		token, err := in.Token()
		if errors.Is(err, io.EOF) {
			return strings.Join(lines, "\n")
		}
		require.NoError(t, err)
		start, ok := token.(xml.StartElement)
		if !ok || start.Name.Local != "text" {
			continue
		}
		var text string
		require.NoError(t, in.DecodeElement(&text, &start))
		lines = append(lines, text)
	}
}

func TestDraw(t *testing.T) {
	svg := draw("== 1. Title <&>\n\n   $ client\n   | █ Hello\n" + strings.Repeat("word ", 25) + "\n" + strings.Repeat("x", columns+3) + "\n")
	require.Equal(t, "== 1. Title <&>\n   $ client\n   | █ Hello\n"+
		strings.TrimSuffix(strings.Repeat("word ", 20), " ")+"\n       "+strings.Repeat("word ", 5)+"\n"+
		strings.Repeat("x", columns)+"\n       xxx", textOf(t, svg))
	for _, want := range []string{
		`<text x="16" y="29" class="title" xml:space="preserve">== 1.`,
		`<text x="16" y="65" class="command" xml:space="preserve">   $ client`,
		`<text x="16" y="83" xml:space="preserve">   | `,
		`width="844" height="176" viewBox="0 0 844 176"`,
	} {
		require.Contains(t, string(svg), want)
	}
}

func TestExcerpt(t *testing.T) {
	text, err := excerpt("Consul UI: http://127.0.0.1:8500/ui\n== 2. Two\n== 3. Three\n   | node=10.1.2.3:4000 127.0.0.1:16686\n")
	require.NoError(t, err)
	require.Equal(t, "$ make demo\n...\n\n== 3. Three\n   | node=192.0.2.2:4000 127.0.0.1:16686\n", text)
	_, err = excerpt("nothing")
	require.EqualError(t, err, "the demo's output has no \"== 3. \":\nnothing")
}

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "picture")
	require.EqualError(t, write(path, make([]byte, maxSize+1)), path+" would have 150001 bytes, more than 150000; let it show less")
	require.NoFileExists(t, path)
	require.NoError(t, write(path, make([]byte, maxSize)))
}
