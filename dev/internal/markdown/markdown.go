// Package markdown parses the project's documents, for the tests that check the documents.
package markdown

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"unicode"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	extast "github.com/yuin/goldmark/extension/ast"
	"github.com/yuin/goldmark/text"
)

// Document has the parts of a document that the tests check.
type Document struct {
	Blocks  []Block
	Links   []Link
	Anchors map[string]bool // of the headings, as GitHub generates them
	Tables  []Table
}

// Block is a fenced or indented code block.
type Block struct {
	Line int    // number of the first line
	Info string // the text after the opening fence, such as "console terminal=srv1"
	Text string
	Note string // the text of the HTML comment right before the block
}

// Language returns the first word of the block's info.
func (b Block) Language() string {
	language, _, _ := strings.Cut(b.Info, " ")
	return language
}

// Value returns the text after "key=" in the block's info, or "" if the info lacks the key.
func (b Block) Value(key string) string {
	for _, word := range strings.Fields(b.Info) {
		if value, ok := strings.CutPrefix(word, key+"="); ok {
			return value
		}
	}
	return ""
}

// Runs reports whether the tests run the block. The tests run each console block whose note does
// not begin with NotRun.
func (b Block) Runs() bool {
	return b.Language() == "console" && !strings.HasPrefix(b.Note, NotRun)
}

// NotRun is the beginning of the comment before a block that the tests do not run.
const NotRun = "not run:"

// Link is a link or an image.
type Link struct {
	Line        int
	Destination string
	Code        []string // the texts in backticks in a link's text; empty for an image
	Image       bool
	Alt         string // alternative text of an image
}

// Table has the text of a table's cells, row by row, without the header.
type Table [][]string

// Read parses the document at path.
func Read(path string) (*Document, error) {
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	d := &Document{Anchors: map[string]bool{}}
	line := func(n ast.Node) int { return 1 + bytes.Count(source[:n.Pos()], []byte("\n")) }
	root := goldmark.New(goldmark.WithExtensions(extension.GFM)).Parser().Parse(text.NewReader(source))
	err = ast.Walk(root, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.FencedCodeBlock:
			b := Block{Line: line(n), Text: string(n.Lines().Value(source)), Note: comment(n.PreviousSibling(), source)}
			if n.Info != nil {
				b.Info = string(n.Info.Value(source))
			}
			d.Blocks = append(d.Blocks, b)
		case *ast.CodeBlock:
			d.Blocks = append(d.Blocks, Block{Line: line(n), Text: string(n.Lines().Value(source)), Note: comment(n.PreviousSibling(), source)})
		case *ast.Heading:
			d.anchor(plain(n, source))
		case *ast.Link:
			d.Links = append(d.Links, Link{Line: line(n), Destination: string(n.Destination), Code: code(n, source)})
		case *ast.Image:
			d.Links = append(d.Links, Link{Line: line(n), Destination: string(n.Destination), Image: true, Alt: plain(n, source)})
		case *extast.Table:
			d.Tables = append(d.Tables, table(n, source))
		}
		return ast.WalkContinue, nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return d, nil
}

// comment returns the text of n if n is an HTML comment, and "" otherwise.
func comment(n ast.Node, source []byte) string {
	html, ok := n.(*ast.HTMLBlock)
	if !ok {
		return ""
	}
	whole := html.Lines().Value(source)
	if html.HasClosure() {
		whole = append(whole, html.ClosureLine.Value(source)...)
	}
	inner, ok := strings.CutPrefix(strings.TrimSpace(string(whole)), "<!--")
	if !ok {
		return ""
	}
	return strings.TrimSpace(strings.TrimSuffix(inner, "-->"))
}

// anchor adds the anchor of a heading. The anchor has the heading's letters in lower case, and its
// digits, hyphens and underscores. A hyphen replaces each space. If the document already has this
// anchor, the method appends a hyphen and a number.
func (d *Document) anchor(heading string) {
	base := strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
	anchor := base
	for i := 1; d.Anchors[anchor]; i++ {
		anchor = fmt.Sprintf("%s-%d", base, i)
	}
	d.Anchors[anchor] = true
}

func table(t *extast.Table, source []byte) Table {
	var rows Table
	for r := t.FirstChild(); r != nil; r = r.NextSibling() {
		if _, ok := r.(*extast.TableRow); !ok {
			continue
		}
		var cells []string
		for c := r.FirstChild(); c != nil; c = c.NextSibling() {
			cells = append(cells, plain(c, source))
		}
		rows = append(rows, cells)
	}
	return rows
}

// code returns the texts in backticks in n.
func code(n ast.Node, source []byte) []string {
	var all []string
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		if span, ok := c.(*ast.CodeSpan); ok {
			all = append(all, plain(span, source))
		} else {
			all = append(all, code(c, source)...)
		}
	}
	return all
}

// plain returns the text of n without markup.
func plain(n ast.Node, source []byte) string {
	var b strings.Builder
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		if t, ok := c.(*ast.Text); ok {
			b.Write(t.Value(source))
		} else {
			b.WriteString(plain(c, source))
		}
	}
	return b.String()
}
