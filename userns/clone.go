package userns

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// cloned is the init, waiting for its Config, or why there is none.
type cloned struct {
	process  *Process
	inner    []specs.Mount // what the init has to mount
	innerFDs []int         // the numbers that detached mounts among them have there
	err      error
}

// clone makes the mounts and starts the init. A goroutine of its own does it and stays on its thread until the process
// has ended: the parent-death signal is sent when the parent *thread* ends (PR_SET_PDEATHSIG(2const)). It owns socket.
func (cfg RunConfig) clone(socket int, trace func(string, string, time.Duration)) <-chan cloned {
	out := make(chan cloned, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread, which is not like the others any more, ends with the goroutine
		c := cfg.cloneHere(socket, trace)
		unix.Close(socket)
		out <- c
		if c.err != nil {
			return
		}
		state, err := c.process.proc.Wait()
		c.process.done <- waitResult{state, err}
	}()
	return out
}

func (cfg RunConfig) cloneHere(socket int, trace func(string, string, time.Duration)) (c cloned) {
	failed := func(err error) cloned { return cloned{err: err} }
	spec := cfg.Spec
	// A umask and a working folder of this thread's own: a user's umask of 077 must not shut mount points off from the
	// container's users, and the init finds the root as its working folder. (A path to it may lead through folders of the
	// caller's that the container's root may not enter, and a descriptor would be of the wrong mount namespace.)
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return failed(fmt.Errorf("unshare: %w", err))
	}
	unix.Umask(0o022)
	began := time.Now()
	root, err := unix.Open(spec.Root.Path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return failed(fmt.Errorf("root file system %s: %w", spec.Root.Path, err))
	}
	defer unix.Close(root)
	inner, err := makeMounts(spec, root)
	if err != nil {
		return failed(err)
	}
	defer inner.close()
	trace("mounts", fmt.Sprintf("%d in the outer namespace", len(spec.Mounts)-len(inner.mounts)), time.Since(began))

	began = time.Now()
	if err := unix.Fchdir(root); err != nil {
		return failed(fmt.Errorf("root file system %s: %w", spec.Root.Path, err))
	}
	setgroups := readSysctl("/proc/self/setgroups") == "allow"
	a := &syscall.SysProcAttr{
		UidMappings: sysMaps(spec.Linux.UIDMappings), GidMappings: sysMaps(spec.Linux.GIDMappings),
		GidMappingsEnableSetgroups: setgroups,
		// Id 0 of the inner namespace need not be the caller's own id.
		Credential: &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: !setgroups},
		Setsid:     true, Pdeathsig: syscall.SIGKILL,
	}
	for _, n := range spec.Linux.Namespaces {
		if n.Path == "" {
			a.Cloneflags |= cloneFlags[n.Type]
		} else if err := join(n); err != nil {
			return failed(err)
		}
	}

	files := []uintptr{0, 0, 0, uintptr(socket)} // the fourth is initproto.Fd
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return failed(fmt.Errorf("open %s: %w", os.DevNull, err))
	}
	defer unix.Close(null)
	for i, f := range []*os.File{cfg.Stdin, cfg.Stdout, cfg.Stderr} {
		files[i] = uintptr(null)
		if f != nil && !spec.Process.Terminal {
			files[i] = f.Fd()
			giveStream(int(f.Fd()), ownerOf(spec))
		}
	}
	c.inner = inner.mounts
	for _, fd := range inner.fds {
		if fd < 0 {
			c.innerFDs = append(c.innerFDs, -1)
			continue
		}
		c.innerFDs = append(c.innerFDs, len(files))
		files = append(files, uintptr(fd))
	}
	helper, closeHelper, err := Seal(cfg.HelperPath)
	if err != nil {
		return failed(err)
	}
	defer closeHelper()
	handed := make([]*os.File, len(files))
	for i, fd := range files {
		// Copies, which can be closed without closing what others own.
		dup, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return failed(fmt.Errorf("hand a descriptor to the init: %w", err))
		}
		handed[i] = os.NewFile(uintptr(dup), "handed")
		defer handed[i].Close()
	}
	p := &Process{done: make(chan waitResult, 1)}
	p.proc, err = os.StartProcess(helper, cfg.HelperArgs, &os.ProcAttr{Env: []string{}, Files: handed, Sys: a})
	if err != nil {
		return failed(startError(err))
	}
	p.Pid = p.proc.Pid
	c.process = p
	trace("namespaces", namespaceNames(spec), time.Since(began))
	return c
}

var cloneFlags = map[specs.LinuxNamespaceType]uintptr{
	specs.UserNamespace: unix.CLONE_NEWUSER, specs.MountNamespace: unix.CLONE_NEWNS, specs.PIDNamespace: unix.CLONE_NEWPID,
	specs.IPCNamespace: unix.CLONE_NEWIPC, specs.UTSNamespace: unix.CLONE_NEWUTS, specs.NetworkNamespace: unix.CLONE_NEWNET,
	specs.CgroupNamespace: unix.CLONE_NEWCGROUP,
}

// join moves the calling thread, whose child the init will be, into a namespace that is there already.
func join(n specs.LinuxNamespace) error {
	switch n.Type {
	case specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace:
	default:
		return fmt.Errorf("%s namespace: one that is there already cannot be joined", n.Type)
	}
	fd, err := unix.Open(n.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s namespace %s: %w", n.Type, n.Path, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, int(cloneFlags[n.Type])); err != nil {
		return fmt.Errorf("join %s namespace %s: %w; it has to belong to the user namespace of this monitor or to one below it", n.Type, n.Path, err)
	}
	return nil
}

func namespaceNames(spec *specs.Spec) string {
	var names []string
	for _, n := range spec.Linux.Namespaces {
		names = append(names, string(n.Type))
	}
	return strings.Join(names, " ")
}

// giveStream makes the container's root the owner of a pipe or socket. The init cannot when their owner has no id in
// the container, as is so for root's. Where it is refused, /dev/stdout cannot be opened again; all else works.
func giveStream(fd int, o owner) {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || int(st.Uid) == o.uid {
		return
	}
	if t := st.Mode & unix.S_IFMT; t == unix.S_IFIFO || t == unix.S_IFSOCK {
		_ = unix.Fchown(fd, o.uid, o.gid)
	}
}

// Seal gives a path to the helper that cannot be written through: a container that gets hold of its init's
// /proc/1/exe would change what its user executes next (CVE-2019-5736). A sealed memory file is that already; of
// anything else a sealed copy is made, which release gives back. Start does this itself where it has not been done
// before, at the cost of a millisecond.
func Seal(path string) (sealed string, release func(), err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", nil, fmt.Errorf("open the init: %w", err)
	}
	defer f.Close()
	if seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0); err == nil && seals&unix.F_SEAL_WRITE != 0 {
		return path, func() {}, nil
	}
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("init", flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // a kernel before 6.3, where all can be executed
		fd, err = unix.MemfdCreate("init", flags)
	}
	if err != nil {
		return "", nil, fmt.Errorf("memfd_create: %w", err)
	}
	// Above the numbers on which the child's own files are put.
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 100)
	unix.Close(fd)
	if err != nil {
		return "", nil, fmt.Errorf("dup: %w", err)
	}
	w := os.NewFile(uintptr(high), "init")
	if _, err = io.Copy(w, f); err == nil {
		_, err = unix.FcntlInt(w.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		w.Close()
		return "", nil, fmt.Errorf("copy the init to memory: %w", err)
	}
	return fdPath(high), func() { w.Close() }, nil
}
