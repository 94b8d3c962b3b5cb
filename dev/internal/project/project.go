// Package project finds the directory of the project.
package project

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Pair is the path of the module that has both programs.
const Pair = "github.com/gomicroexample/basis"

// Root returns the project's top directory, where the go.mod of the pair is. It
// works wherever Go finds that module: there, in dev and in dev/bench.
func Root() (string, error) {
	list := exec.Command("go", "list", "-m", "-f={{.Dir}}", Pair)
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		return "", fmt.Errorf("asking go for the directory of %s: %w", Pair, err)
	}
	return strings.TrimSpace(string(out)), nil
}
