package oneline_test

import (
	"bytes"
	"log"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/internal/oneline"
)

func TestEscape(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"a\nb\r\n\t", `a\nb\r\n\t`},
		{"\x1b[31mred\x7f\x00", `\x1b[31mred\x7f\x00`},
		{"\u0085\u009b2J\u2028\u2029", `\u0085\u009b2J\u2028\u2029`},
		{"not UTF-8: \xff\x9b", "not UTF-8: \ufffd\ufffd"},
	} {
		require.Equal(t, test.want, oneline.Escape(test.text))
	}
	for _, text := range []string{"", `John "Joe" O'Neill \n`, "José", "山田 太郎", "שלום", "می\u200cخواهم", "👩🏽‍🚀"} {
		require.Equal(t, text, oneline.Escape(text))
	}
}

func TestALogRecordIsALine(t *testing.T) {
	var out bytes.Buffer
	logger := log.New(oneline.Writer{Writer: &out}, "", 0)
	logger.Print("cannot register: a\n2026/01/01 00:00:00 \x1b[Aforged")
	logger.Print("next\n")
	require.Equal(t, `cannot register: a\n2026/01/01 00:00:00 \x1b[Aforged`+"\nnext\n", out.String())
}
