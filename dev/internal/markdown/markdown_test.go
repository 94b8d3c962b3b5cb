package markdown_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/dev/internal/markdown"
)

const text = "# What `go run` does, and why\n" + `
See [` + "`main.go` of srv" + `](../srv/main.go), ![a picture](a.png) and <https://example.org>.

## Again
## Again

<!-- not run: no
network -->
` + "```console terminal=a on=mdns\n$ one\n```\n" + `
- in a list:

  ` + "```hcl file=x.hcl\n  key = 1\n  ```\n" + `
| flag | default |
|---|---|
| ` + "`--a`" + ` | [b](#again-1) |
`

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.md")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	d, err := markdown.Read(path)
	require.NoError(t, err)

	require.Equal(t, []markdown.Block{
		{Line: 10, Info: "console terminal=a on=mdns", Text: "$ one\n", Note: "not run: no\nnetwork"},
		{Line: 16, Info: "hcl file=x.hcl", Text: "key = 1\n"},
	}, d.Blocks)
	require.False(t, d.Blocks[0].Runs())
	require.Equal(t, "mdns", d.Blocks[0].Value("on"))
	require.Equal(t, "hcl", d.Blocks[1].Language())
	require.Equal(t, []markdown.Link{
		{Line: 3, Destination: "../srv/main.go", Code: []string{"main.go"}},
		{Line: 3, Destination: "a.png", Image: true, Alt: "a picture"},
		{Line: 22, Destination: "#again-1"},
	}, d.Links)
	require.Equal(t, map[string]bool{"what-go-run-does-and-why": true, "again": true, "again-1": true}, d.Anchors)
	require.Equal(t, []markdown.Table{{{"--a", "b"}}}, d.Tables)
}
