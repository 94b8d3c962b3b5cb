// Package oneline keeps text from outside on its line: names, answers, errors
// of others. Printed as it is, it could add lines to a log, or steer the terminal
// that shows it.
package oneline

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Breaks reports whether r ends a line or steers a terminal: a control character
// (\n and ESC among them, and those from U+0080 to U+009F, which some terminals
// take for escape codes), or one of Unicode's line and paragraph separators.
func Breaks(r rune) bool {
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029'
}

// Escape returns s with all that Breaks written as in Go source, as in \n and
// \x1b, and with U+FFFD in the place of what is not UTF-8. Other text stays as it
// is, in any language.
func Escape(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r == utf8.RuneError || Breaks(r) }) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if Breaks(r) {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Writer escapes what is written to it, but for the \n at the end of each Write,
// which has to be one line: log.Logger's are.
type Writer struct{ io.Writer }

// Write writes line, escaped. What it returns counts the bytes of line.
func (w Writer) Write(line []byte) (int, error) {
	text, end := bytes.CutSuffix(line, []byte("\n"))
	escaped := Escape(string(text))
	if end {
		escaped += "\n"
	}
	if _, err := io.WriteString(w.Writer, escaped); err != nil {
		return 0, err
	}
	return len(line), nil
}
