// Package documents_test checks the documents' links, pictures, tables of flags and descriptions of
// packages. It also checks that each command in the documents is run by a test. If no test runs a
// command, the document must say why. TestDocuments in dev/e2e runs the commands.
package documents_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/dev/internal/markdown"
	"github.com/gomicroexample/basis/dev/internal/project"
)

// documents returns all documents by path. The paths are relative to the project's top directory,
// and documents makes this directory the test's working directory.
func documents(t *testing.T) map[string]*markdown.Document {
	t.Helper()
	root, err := project.Root()
	require.NoError(t, err)
	t.Chdir(root)
	paths, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	all := map[string]*markdown.Document{}
	for _, path := range append(paths, "README.md", "CONTRIBUTING.md") {
		d, err := markdown.Read(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		require.NoError(t, err)
		all[path] = d
	}
	return all
}

// command matches the beginning of a line that a reader would type into a terminal.
var command = regexp.MustCompile(`^(\$|>) |^(sudo |[A-Z_]+=\S* )*(go|make|docker|docker-compose|consul|jaeger|curl|grpcurl|ghz|client|srv|export|git|protoc|kill)( |$)`)

// file matches the path of a file of the project in a comment.
var file = regexp.MustCompile(`[\w.-]+(/[\w.-]+)+`)

func TestEachCommandIsTriedOrSaidNotToBe(t *testing.T) {
	for path, d := range documents(t) {
		for _, b := range d.Blocks {
			where := fmt.Sprintf("%s:%d", path, b.Line)
			if b.Language() != "console" {
				for line := range strings.Lines(b.Text) {
					require.NotRegexp(t, command, line, "%s: no test runs this command, because it is not in a console block", where)
				}
				continue
			}
			if b.Runs() {
				continue
			}
			reason := strings.TrimSpace(strings.TrimPrefix(b.Note, markdown.NotRun))
			require.NotEmpty(t, reason, "%s: the document does not say why no test runs this command", where)
			for _, name := range file.FindAllString(reason, -1) {
				script, err := os.ReadFile(name)
				require.NoError(t, err, where)
				for line := range strings.Lines(b.Text) {
					if line, ok := strings.CutPrefix(line, "$ "); ok {
						require.True(t, hasCommand(string(script), line), "%s: %s has no %s", where, name, line)
					}
				}
			}
		}
	}
}

// hasCommand reports whether a line of script has all words of the parameter command, in the same
// order. It ignores options.
func hasCommand(script, command string) bool {
	command, _, _ = strings.Cut(command, " #")
	for line := range strings.Lines(script) {
		words := slices.DeleteFunc(strings.Fields(command), func(word string) bool { return strings.HasPrefix(word, "-") })
		for _, word := range strings.Fields(line) {
			if len(words) > 0 && (word == words[0] || "docker-"+word == words[0]) { // scripts write compose for docker-compose
				words = words[1:]
			}
		}
		if len(words) == 0 {
			return true
		}
	}
	return false
}

func TestLinks(t *testing.T) {
	all := documents(t)
	for path, d := range all {
		for _, l := range d.Links {
			if strings.Contains(l.Destination, "://") {
				continue
			}
			where := fmt.Sprintf("%s:%d: link to %s", path, l.Line, l.Destination)
			name, anchor, _ := strings.Cut(l.Destination, "#")
			target := path
			if name != "" {
				target = filepath.Join(filepath.Dir(path), name)
				if _, err := os.Stat(target); err != nil {
					assert.Fail(t, "no such file", where)
					continue
				}
			}
			switch {
			case strings.HasSuffix(target, ".go"):
				assert.NoError(t, checkGo(target, anchor, l.Code), where)
			case anchor == "":
			case strings.HasSuffix(target, ".md"):
				require.Contains(t, all, target, where)
				assert.True(t, all[target].Anchors[anchor], "%s: no such heading", where)
			default:
				assert.Fail(t, "only documents have anchors", where)
			}
		}
	}
}

// TestLinks checks that the linked pictures exist.
func TestEachPictureIsShownAndDescribed(t *testing.T) {
	shown := map[string]bool{}
	for path, d := range documents(t) {
		for _, l := range d.Links {
			if l.Image {
				shown[filepath.Join(filepath.Dir(path), l.Destination)] = true
				assert.GreaterOrEqual(t, len(strings.Fields(l.Alt)), 5, "%s:%d: the text does not describe the picture %s", path, l.Line, l.Destination)
			}
		}
	}
	pictures, err := filepath.Glob("docs/pictures/*")
	require.NoError(t, err)
	require.NotEmpty(t, pictures)
	for _, picture := range pictures {
		assert.True(t, shown[picture], "no document shows %s", picture)
	}
}

func TestEachPackageIsDescribed(t *testing.T) {
	linked := map[string]bool{}
	for _, l := range documents(t)["CONTRIBUTING.md"].Links {
		linked[strings.TrimSuffix(l.Destination, "/")] = true
	}
	for _, dir := range []string{"srv", "client", "tracer", "internal"} {
		require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && filepath.Ext(path) == ".go" {
				assert.True(t, linked[filepath.Dir(path)], "CONTRIBUTING.md does not describe %s", filepath.Dir(path))
			}
			return err
		}))
	}
}

// option matches the line of a flag on the help page: name, value, default and variable.
var option = regexp.MustCompile(`(?m)^   --(\w+)( value)?  .*?(?: \(default: "?(.*?)"?\))?(?: \[\$(\w+)\])?$`)

// The tables of docs/flags.md have the flags that --help lists: one table for srv, one for
// client, and one for the flags of both programs.
func TestFlags(t *testing.T) {
	document := documents(t)["docs/flags.md"]
	own := map[string]map[string][]string{} // by program and flag: the flag's variable and default
	for _, program := range []string{"srv", "client"} {
		help, err := exec.Command("go", "run", "./"+program, "--help").Output()
		require.NoError(t, err)
		flags := map[string][]string{}
		for _, m := range option.FindAllStringSubmatch(string(help), -1) {
			name, takesValue, value, variable := m[1], m[2] != "", m[3], m[4]
			if variable == "" {
				variable = "none"
			}
			if value == "" && takesValue {
				value = "none"
			} else if strings.Contains(m[0], "; on, unless ") {
				value = "on"
			} else if value == "" {
				value = "off"
			}
			flags["--"+name] = []string{variable, value}
		}
		require.NotEmpty(t, flags)
		own[program] = flags
	}
	told := map[string]map[string][]string{"srv": {}, "client": {}}
	programs := [][]string{{"srv"}, {"client"}, {"srv", "client"}}
	for _, table := range document.Tables {
		if !strings.HasPrefix(table[0][0], "--") {
			continue
		}
		require.NotEmpty(t, programs, "docs/flags.md has more than three tables of flags")
		for _, row := range table {
			for _, program := range programs[0] {
				told[program][row[0]] = row[1:3]
			}
		}
		programs = programs[1:]
	}
	require.Equal(t, own, told)
}
