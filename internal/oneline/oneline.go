// Package oneline escapes untrusted text, so that the text stays on one line of output.
// Untrusted text, such as names, responses and errors of other programs, may contain control
// characters. These could add lines to a log or control the terminal that shows the log.
package oneline

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Breaks reports whether r can end a line or control a terminal. Such characters are the control
// characters and Unicode's line and paragraph separators, U+2028 and U+2029. The control
// characters include \n, ESC, and U+0080 to U+009F, which some terminals read as escape codes.
func Breaks(r rune) bool {
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029'
}

// Escape returns s with a Go escape sequence, such as \n or \x1b, in place of each character for
// which Breaks returns true. Escape also replaces each byte that is not valid UTF-8 with U+FFFD.
// All other characters, of any language, stay unchanged.
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

// Writer escapes the text of each Write, and writes the result as one line to the embedded
// io.Writer. Writer does not escape a \n at the end of the text. A log.Logger can use a Writer,
// because the logger makes one Write for each record.
type Writer struct{ io.Writer }

// Write escapes line and writes the result. It returns the length of line, or 0 and the error of
// the embedded io.Writer.
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
