package tracer

import (
	"bytes"
	"log"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The error of a failed lookup is logged, even if errResolving was logged less than a minute ago.
func TestTheErrorOfALookupIsLogged(t *testing.T) {
	var logged bytes.Buffer
	log.SetOutput(&logged)
	defer log.SetOutput(os.Stderr)
	l := &logger{}
	for range 3 {
		l.Error("error reporting span: " + errResolving.Error())
	}
	for range 3 {
		l.Error("lookup jaeger.example: no such host")
	}
	require.Equal(t, 1, strings.Count(logged.String(), errResolving.Error()))
	require.Equal(t, 1, strings.Count(logged.String(), "no such host"))
}
