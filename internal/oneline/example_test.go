package oneline_test

import (
	"fmt"

	"github.com/gomicroexample/basis/internal/oneline"
)

func ExampleEscape() {
	fmt.Println(oneline.Escape("Zoë\n\x1b[2J2026/01/01 all is well"))
	// Output: Zoë\n\x1b[2J2026/01/01 all is well
}
