// Command moss-monitor is the companion of a container: see package lifecycle. It is built first and embedded in moss.
package main

import (
	"os"
	"path"

	"github.com/moss-run/moss/lifecycle"
)

func main() {
	if path.Base(os.Args[0]) == lifecycle.RemoveRole {
		os.Exit(lifecycle.RemoveMain(os.Args[1:]))
	}
	os.Exit(lifecycle.MonitorMain(os.Args[1:]))
}
