//go:build embedhelpers

package main

import (
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/moss-run/moss/lifecycle"
	"golang.org/x/sys/unix"
)

// The two programs that are executed on the way into a container, built first and carried in the binary: slim, because
// Go pays for all linked packages' initialisation at every exec.

//go:embed helpers/moss-init
var initProgram []byte

//go:embed helpers/moss-net
var netProgram []byte

func initHelper(string) (lifecycle.Helper, error) { return sealed("moss-init", initProgram) }

// netHelper keeps the network process, 10 MB that take 6 ms to copy into memory, in a file below the store: no container
// can reach it. Where files there cannot be executed, it is copied all the same.
func netHelper(root string) (lifecycle.Helper, error) {
	dir := filepath.Join(root, "helpers")
	// The first pages of a Go program hold its build id, which is a hash of the whole.
	sum := sha256.Sum256(netProgram[:16<<10])
	path := filepath.Join(dir, fmt.Sprintf("moss-net-%x", sum[:12]))
	if st, err := os.Stat(path); err != nil || st.Size() != int64(len(netProgram)) {
		if err := writeProgram(dir, path, netProgram); err != nil {
			return sealed("moss-net", netProgram)
		}
	}
	if unix.Access(path, unix.X_OK) != nil { // EACCES on a file system that is mounted noexec
		return sealed("moss-net", netProgram)
	}
	return lifecycle.Helper{Path: path, Args: []string{"moss-net"}}, nil
}

// writeProgram puts a program in its place at once, and takes those of other versions away.
func writeProgram(dir, path string, program []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	old, _ := filepath.Glob(filepath.Join(dir, "moss-net-*"))
	f, err := os.CreateTemp(dir, ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := f.Write(program); err != nil {
		f.Close()
		return err
	}
	if err := errors.Join(f.Chmod(0o700), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	for _, o := range old {
		if o != path {
			os.Remove(o)
		}
	}
	return nil
}

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
