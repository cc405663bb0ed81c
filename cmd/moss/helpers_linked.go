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
	roles[lifecycle.MonitorRole] = func() { os.Exit(lifecycle.MonitorMain(os.Args[1:])) }
	roles[lifecycle.RemoveRole] = func() { os.Exit(lifecycle.RemoveMain(os.Args[1:])) }
	roles["moss-init"] = runinit.Main
	roles["moss-net"] = netproc.Main
	roles["hello"] = inside.Main
}

func programs(string) (lifecycle.Programs, error) {
	self := func(role string) lifecycle.Program {
		return lifecycle.Program{Path: "/proc/self/exe", Args: []string{role}}
	}
	return lifecycle.Programs{Monitor: self(lifecycle.MonitorRole), Init: self("moss-init"), Net: self("moss-net")}, nil
}

// helloProgram is the program of builtin:hello.
func helloProgram() ([]byte, error) { return os.ReadFile("/proc/self/exe") }
