package main

import (
	"encoding/xml"
	"fmt"
	"math"
	"regexp"
	"strings"

	"github.com/mattn/go-runewidth"
)

// The sizes of the drawn terminal. columns is in characters, and the other numbers are in pixels.
const (
	columns    = 104
	charWidth  = 7.8
	lineHeight = 18
	margin     = 16
	indent     = "       " // indentation of the second and later rows of a long line
)

// style is the CSS of a dark terminal, which is readable on a light page and on a dark page.
const style = `text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre; fill: #d0d7de }
.title { fill: #f0c674; font-weight: bold }
.command { fill: #8fce7a }
.note { fill: #9aa4ae }`

// kinds maps the beginning of a line to the CSS class of the line.
var kinds = []struct {
	begin *regexp.Regexp
	class string
}{
	{regexp.MustCompile(`^== `), "title"},
	{regexp.MustCompile(`^ *\$ `), "command"},
	{regexp.MustCompile(`^ *(Look for|Trace of [^:]*|In the API):`), "note"},
}

// draw returns an SVG of a terminal that shows text.
func draw(text string) []byte {
	var lines strings.Builder
	y := margin
	for line := range strings.Lines(text) {
		class := ""
		for _, k := range kinds {
			if k.begin.MatchString(line) {
				class = fmt.Sprintf(" class=%q", k.class)
			}
		}
		for _, row := range rows(strings.TrimRight(line, "\n")) {
			y += lineHeight
			if row == "" {
				continue
			}
			fmt.Fprintf(&lines, `<text x="%d" y="%d"%s xml:space="preserve">`, margin, y-5, class)
			_ = xml.EscapeText(&lines, []byte(row)) // a strings.Builder returns no error
			lines.WriteString("</text>\n")
		}
	}
	width, height := 2*margin+int(math.Ceil(columns*charWidth)), y+margin
	return fmt.Appendf(nil, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d">
<style>%s</style>
<rect width="100%%" height="100%%" rx="8" fill="#1c2128"/>
%s</svg>
`, width, height, style, lines.String())
}

// rows breaks a line into rows of the terminal, at spaces where possible.
func rows(line string) []string {
	var all []string
	for runewidth.StringWidth(line) > columns {
		row := runewidth.Truncate(line, columns, "")
		if i := strings.LastIndexByte(row, ' '); i > len(indent) {
			row = row[:i]
		}
		all = append(all, row)
		line = indent + strings.TrimPrefix(line[len(row):], " ")
	}
	return append(all, line)
}
