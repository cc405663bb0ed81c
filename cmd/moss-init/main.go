// Command moss-init is what moss executes on the way into a container: the container's pid 1 in its first moments,
// and the program of the image builtin:hello. It is built first and embedded in moss.
package main

import (
	"os"
	"path"

	"github.com/moss-run/moss/userns/inside"
	"github.com/moss-run/moss/userns/runinit"
)

func main() {
	if path.Base(os.Args[0]) == "hello" {
		inside.Main()
	}
	runinit.Main()
}
