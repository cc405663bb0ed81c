package fuseoverlay

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ProbeMain is the role that Probe runs, as "<role> serve <scratch folder>". It runs itself once more as "<role> use
// <root>", for what is done in the root: the process that serves a mount must not exec from it, as Go's fork stops a
// thread, and with it a garbage collection, until the kernel has read the program. The last one, executed from the
// root, is "<role> used". What goes wrong is written to the standard output, and nothing else.
func ProbeMain() {
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 2 && args[0] == "serve":
		err = probeServe(args[1])
	case len(args) == 2 && args[0] == "use":
		err = probeUse(args[1])
	case len(args) == 1 && args[0] == "used":
	default:
		err = fmt.Errorf("%s: unknown arguments", os.Args[0])
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

func probeServe(scratch string) (err error) {
	// Mounts must not travel to where the namespace was copied from.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	program, err := os.Open("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("open the trial program: %w", err)
	}
	defer program.Close()
	fi, err := program.Stat()
	if err != nil {
		return fmt.Errorf("look at the trial program: %w", err)
	}
	cfg := RootConfig{
		Tree:  &probeTree{program: program, size: fi.Size()},
		Upper: filepath.Join(scratch, "upper"), Work: filepath.Join(scratch, "work"), Mounts: filepath.Join(scratch, "mounts"),
	}
	for _, d := range []string{cfg.Upper, cfg.Work} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return fmt.Errorf("make a folder: %w", err)
		}
	}
	root, err := MountRoot(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{os.Args[0], "use", root.Dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	said, err := cmd.Output()
	if len(said) > 0 {
		return errors.New(strings.TrimSpace(string(said)))
	}
	if err != nil {
		return fmt.Errorf("use the trial root: %w", err)
	}
	return nil
}

// probeUse does once what containers do to their root all the time.
func probeUse(root string) error {
	program, folder := filepath.Join(root, "program"), filepath.Join(root, "folder")
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"write a file", func() error { return os.WriteFile(filepath.Join(root, "new"), []byte("x"), 0o600) }},
		{"rename a file", func() error { return os.Rename(filepath.Join(root, "new"), filepath.Join(folder, "new")) }},
		{"copy a file up", func() error { return os.Chmod(filepath.Join(folder, "file"), 0o600) }},
		{"delete a file of the image", func() error { return os.Remove(filepath.Join(folder, "file")) }},
		{"delete a folder of the image", func() error { return os.RemoveAll(folder) }},
		{"make that folder anew", func() error { return os.Mkdir(folder, 0o755) }},
		{"list it", func() error {
			names, err := os.ReadDir(folder)
			if err == nil && len(names) > 0 {
				err = fmt.Errorf("it shows %d deleted files", len(names))
			}
			return err
		}},
		{"execute a program of the image", func() error { return syscall.Exec(program, []string{os.Args[0], "used"}, nil) }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("use the trial root: %s: %w", step.what, err)
		}
	}
	return nil
}

// probeTree is the image of a probe: the program itself, and a folder with an empty file.
type probeTree struct {
	program *os.File
	size    int64
}

const (
	probeRoot = iota + 1
	probeProgram
	probeFolder
	probeFile
)

var probeNodes = [...]struct {
	name   string
	parent uint64
	mode   uint32
}{
	probeRoot:    {"", 0, unix.S_IFDIR | 0o755},
	probeProgram: {"program", probeRoot, unix.S_IFREG | 0o755},
	probeFolder:  {"folder", probeRoot, unix.S_IFDIR | 0o755},
	probeFile:    {"file", probeFolder, unix.S_IFREG | 0o644},
}

func (t *probeTree) Root() uint64 { return probeRoot }

func (t *probeTree) Lookup(dir uint64, name string) (uint64, syscall.Errno) {
	for i, n := range probeNodes {
		if n.parent == dir && n.name == name {
			return uint64(i), 0
		}
	}
	return 0, unix.ENOENT
}

func (t *probeTree) Stat(node uint64, st *unix.Stat_t) syscall.Errno {
	st.Ino, st.Mode, st.Nlink = node, probeNodes[node].mode, 1
	if node == probeProgram {
		st.Size = t.size
	}
	return 0
}

func (t *probeTree) ReadDir(dir, cookie uint64, emit func(string, uint64, uint32, uint64) bool) syscall.Errno {
	for i := int(cookie); i < len(probeNodes); i++ {
		if n := probeNodes[i]; n.parent == dir && !emit(n.name, uint64(i), n.mode, uint64(i)+1) {
			break
		}
	}
	return 0
}

func (t *probeTree) Readlink(uint64) (string, syscall.Errno) { return "", unix.EINVAL }

func (t *probeTree) Read(node uint64, dst []byte, off int64) (int, syscall.Errno) {
	if node != probeProgram {
		return 0, 0
	}
	n, err := t.program.ReadAt(dst, off)
	if err != nil && err != io.EOF {
		return 0, unix.EIO
	}
	return n, 0
}

func (t *probeTree) HasXattrs() bool                                   { return false }
func (t *probeTree) GetXattr(uint64, string) ([]byte, syscall.Errno)   { return nil, unix.ENODATA }
func (t *probeTree) ListXattr(uint64, func(string) bool) syscall.Errno { return 0 }
func (t *probeTree) StatFS(st *unix.Statfs_t)                          { st.Bsize, st.Frsize, st.Namelen = 4096, 4096, 255 }
