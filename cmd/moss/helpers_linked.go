//go:build !embedhelpers

package main

import (
	"os"

	"github.com/moss-run/moss/lifecycle"
	"github.com/moss-run/moss/netns/netproc"
	"github.com/moss-run/moss/userns/inside"
	"github.com/moss-run/moss/userns/runinit"
)

// Without the tag embedhelpers, one binary is everything: each role executes the binary again under another argv[0].
// It costs a few milliseconds at each start, since package initialisation of all of it is paid at every exec.
func init() {
	roles["moss-init"] = runinit.Main
	roles["moss-net"] = netproc.Main
	roles["hello"] = inside.Main
}

func initHelper(string) (lifecycle.Helper, error) { return self("moss-init") }
func netHelper(string) (lifecycle.Helper, error)  { return self("moss-net") }

func self(role string) (lifecycle.Helper, error) {
	return lifecycle.Helper{Path: "/proc/self/exe", Args: []string{role}}, nil
}

// helloProgram is the program of builtin:hello.
func helloProgram() ([]byte, error) { return os.ReadFile("/proc/self/exe") }
