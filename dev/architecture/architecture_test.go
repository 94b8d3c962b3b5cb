// Package architecture_test checks the imports and the requirements of the pair's module, and which
// packages the module may have. It also checks the generated code.
package architecture_test

import (
	"encoding/json"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/dev/internal/project"
)

// layers lists the pair's packages from top to bottom, as patterns for path.Match, relative to the
// module's root. A package must not import packages of a layer above its own layer, and must not
// import packages of the other program.
var layers = [][]string{
	{"client", "srv"},
	{"client/stack"},
	{"client/flags", "client/load"},
	{"client/balancer", "client/breaker", "client/limiter"},
	{"client/failure", "srv/*"},
	{"tracer"},
	{"internal/*", "internal/*/*"},
	{"proto"},
}

// goPackage has the fields of a package that these tests read from the output of go list.
type goPackage struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
	Deps                               []string // all dependencies except those of the tests
	Module                             *struct{ Path string }
}

// list runs go list with args in the pair's module, and returns the packages that go list reports.
func list(t *testing.T, args ...string) []goPackage {
	t.Helper()
	out := command(t, append([]string{"list", "-json=ImportPath,Imports,TestImports,XTestImports,Deps,Module"}, args...)...)
	var all []goPackage
	for in := json.NewDecoder(strings.NewReader(out)); ; {
		var p goPackage
		err := in.Decode(&p)
		if err == io.EOF {
			return all
		}
		require.NoError(t, err)
		all = append(all, p)
	}
}

// command runs the go command in the pair's module, and returns its stdout.
func command(t *testing.T, args ...string) string {
	t.Helper()
	root, err := project.Root()
	require.NoError(t, err)
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.Output()
	require.NoError(t, err, "go %v: %s", args, problems.String())
	return string(out)
}

// within returns the path of a package of the pair, relative to the module's root. For any other
// package it returns false.
func within(importPath string) (string, bool) {
	return strings.CutPrefix(importPath, project.Pair+"/")
}

func TestEachRequirementIsUsed(t *testing.T) {
	modules := map[string]string{} // from import path to module path
	for _, p := range list(t, "-deps", "-test", "./...") {
		if p.Module != nil {
			modules[p.ImportPath] = p.Module.Path
		}
	}
	used := map[string]bool{} // by module path
	for _, p := range list(t, "./...") {
		for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			used[modules[imported]] = true
		}
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
		Tool []struct{ Path string }
	}
	require.NoError(t, json.Unmarshal([]byte(command(t, "mod", "edit", "-json")), &mod))
	for _, r := range mod.Require {
		isTool := false
		for _, tool := range mod.Tool {
			isTool = isTool || strings.HasPrefix(tool.Path+"/", r.Path+"/")
		}
		assert.True(t, r.Indirect || used[r.Path] || isTool, "go.mod requires %s, and no package of the pair imports it", r.Path)
	}
}

func TestThePairLinksNothingOfDev(t *testing.T) {
	for _, p := range list(t, "-deps", "./srv", "./client") {
		assert.NotRegexp(t, "^"+project.Pair+"/dev(/|$)", p.ImportPath)
	}
}

// A package that only one program links must be below that program's directory, not in internal.
// The test skips packages with helpers for tests. The names of these packages end with "test", like
// net/http/httptest.
func TestBothProgramsLinkWhatIsInternal(t *testing.T) {
	deps := map[string][]string{}
	for _, program := range []string{"srv", "client"} {
		deps[program] = list(t, "./"+program)[0].Deps
	}
	for _, p := range list(t, "./internal/...") {
		if strings.HasSuffix(p.ImportPath, "test") {
			continue
		}
		for program := range deps {
			assert.Contains(t, deps[program], p.ImportPath, "%s does not link %s", program, p.ImportPath)
		}
	}
}

func TestLayers(t *testing.T) {
	for _, p := range list(t, "./...") {
		name, _ := within(p.ImportPath)
		layer := layerOf(name)
		if !assert.GreaterOrEqual(t, layer, 0, "%s is in none of the layers", name) {
			continue
		}
		for _, imported := range p.Imports {
			if other, ok := within(imported); ok {
				assert.LessOrEqual(t, layer, layerOf(other), "%s imports %s, which is above it", name, other)
				assert.False(t, isOf("client", name) && isOf("srv", other), "%s imports %s", name, other)
				assert.False(t, isOf("srv", name) && isOf("client", other), "%s imports %s", name, other)
			}
		}
	}
}

// isOf reports whether the package with the relative path name belongs to program.
func isOf(program, name string) bool { return strings.HasPrefix(name+"/", program+"/") }

// layerOf returns the index of the layer that has the package with the relative path name. If no
// layer has the package, it returns -1.
func layerOf(name string) int {
	return slices.IndexFunc(layers, func(patterns []string) bool {
		return slices.ContainsFunc(patterns, func(pattern string) bool {
			ok, _ := path.Match(pattern, name) // no pattern is malformed
			return ok
		})
	})
}
