// Package project finds the project's top directory.
package project

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Pair is the path of the Go module that has srv and client.
const Pair = "github.com/gomicroexample/basis"

// Root returns the project's top directory, which has the go.mod of the pair. The current directory
// must be in the pair's module, or in the module of dev or dev/bench. Otherwise, Go does not find
// the pair's module.
func Root() (string, error) {
	list := exec.Command("go", "list", "-m", "-f={{.Dir}}", Pair)
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		return "", fmt.Errorf("asking go for the directory of %s: %w", Pair, err)
	}
	return strings.TrimSpace(string(out)), nil
}
