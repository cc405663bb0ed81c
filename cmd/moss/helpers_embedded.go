//go:build embedhelpers

package main

import (
	_ "embed"
	"fmt"

	"github.com/moss-run/moss/lifecycle"
	"golang.org/x/sys/unix"
)

// The two programs that are executed on the way into a container, built first and carried in the binary: slim, because
// Go pays for all linked packages' initialisation at every exec.

//go:embed helpers/moss-init
var initProgram []byte

//go:embed helpers/moss-net
var netProgram []byte

func initHelper() (lifecycle.Helper, error) { return sealed("moss-init", initProgram) }
func netHelper() (lifecycle.Helper, error)  { return sealed("moss-net", netProgram) }

// sealed puts a program into a memory file that nobody can change any more (memfd_create(2), F_ADD_SEALS): a container
// that gets hold of its init's /proc/self/exe cannot overwrite what the next container is started with (CVE-2019-5736).
// The descriptor stays open, close-on-exec, for the life of the process.
func sealed(name string, program []byte) (lifecycle.Helper, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return lifecycle.Helper{}, fmt.Errorf("memfd_create: %w", err)
	}
	for left := program; len(left) > 0; {
		n, err := unix.Write(fd, left)
		if err != nil {
			return lifecycle.Helper{}, fmt.Errorf("write %s to memory: %w", name, err)
		}
		left = left[n:]
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
		return lifecycle.Helper{}, fmt.Errorf("seal %s: %w", name, err)
	}
	// The child executes it through its own copy of the descriptor, which must not be one of the low numbers that os/exec
	// puts the child's own files on.
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 100)
	if err != nil {
		return lifecycle.Helper{}, fmt.Errorf("dup: %w", err)
	}
	unix.Close(fd)
	return lifecycle.Helper{Path: fmt.Sprintf("/proc/self/fd/%d", high), Args: []string{name}}, nil
}

// helloProgram is the program of builtin:hello: the init under another name.
func helloProgram() ([]byte, error) { return initProgram, nil }
