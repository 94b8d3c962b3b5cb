package mtlstest

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNewFilesReplaceOldOnesAndAreForTheirOwnerOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	make := func() []byte {
		require.NoError(t, WriteFiles(dir, time.Now(), time.Now().Add(time.Hour)))
		ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
		require.NoError(t, err)
		return ca
	}
	first := make()
	require.NoError(t, os.Chmod(filepath.Join(dir, "srv-key.pem"), 0o644))
	require.NotEqual(t, first, make())

	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 7)
	for _, f := range files {
		info, err := f.Info()
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode(), f.Name())
	}
	for _, name := range []string{"srv", "client", "consul"} {
		_, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem"))
		require.NoError(t, err)
	}
}
