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

// The programs that are executed on the way into a container, built first and carried in the binary: slim, because Go
// pays for all linked packages' initialisation at every exec. Strings, and not byte slices: the linker puts those among
// the data that can be written, and the kernel then copies them page by page.

//go:embed helpers/moss-monitor
var monitorProgram string

//go:embed helpers/moss-init
var initProgram string

//go:embed helpers/moss-net
var netProgram string

// programs keeps them in files below the store, which no container can reach; the init is copied from there into sealed
// memory at each start. Where files there cannot be executed, they are copied into memory here, which takes some ms.
func programs(root string) (p lifecycle.Programs, err error) {
	dir := filepath.Join(root, "helpers")
	for _, h := range []struct {
		to   *lifecycle.Program
		name string
		text string
	}{{&p.Monitor, "moss-monitor", monitorProgram}, {&p.Init, "moss-init", initProgram}, {&p.Net, "moss-net", netProgram}} {
		h.to.Args = []string{h.name}
		if h.to.Path, err = onDisk(dir, h.name, h.text); err == nil {
			continue
		}
		if h.to.Path, err = inMemory(h.name, h.text); err != nil {
			return p, err
		}
	}
	return p, nil
}

// onDisk is the path of a program's file, made when it is missing or not whole. The file's name is that of its content.
func onDisk(dir, name, text string) (string, error) {
	// The first pages of a Go program hold its build id, which is a hash of the whole.
	sum := sha256.Sum256([]byte(text[:16<<10]))
	path := filepath.Join(dir, fmt.Sprintf("%s-%x", name, sum[:12]))
	if st, err := os.Stat(path); err != nil || st.Size() != int64(len(text)) {
		if err := writeProgram(dir, path, text); err != nil {
			return "", err
		}
		// Those of other versions have had their day.
		old, _ := filepath.Glob(filepath.Join(dir, name+"-*"))
		for _, o := range old {
			if o != path {
				os.Remove(o)
			}
		}
	}
	return path, unix.Access(path, unix.X_OK) // EACCES on a file system that is mounted noexec
}

// writeProgram puts a program in its place at once.
func writeProgram(dir, path, text string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := f.WriteString(text); err != nil {
		f.Close()
		return err
	}
	if err := errors.Join(f.Chmod(0o700), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// inMemory puts a program into a memory file (memfd_create(2)) and returns a path that children of this process can
// execute, and theirs. The descriptor is handed down: a child of a child needs it too.
func inMemory(name, text string) (string, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // a kernel from before that flag
		fd, err = unix.MemfdCreate(name, 0)
	}
	if err != nil {
		return "", fmt.Errorf("memfd_create: %w", err)
	}
	for left := []byte(text); len(left) > 0; {
		n, err := unix.Write(fd, left)
		if err != nil {
			return "", fmt.Errorf("write %s to memory: %w", name, err)
		}
		left = left[n:]
	}
	// Not one of the low numbers that os/exec puts a child's own files on.
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD, 100)
	if err != nil {
		return "", fmt.Errorf("dup: %w", err)
	}
	unix.Close(fd)
	return fmt.Sprintf("/proc/self/fd/%d", high), nil
}

// helloProgram is the program of builtin:hello: the init under another name.
func helloProgram() ([]byte, error) { return []byte(initProgram), nil }
