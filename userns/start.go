package userns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/moss-run/moss/userns/initproto"
)

// RunConfig says what to run, and with which streams.
type RunConfig struct {
	// Spec is an OCI runtime spec whose Root.Path is mounted in the caller's mount namespace. Its id mappings are in
	// terms of the caller's user namespace. Process.User.Username, when set, is docker's user string (name or id, with
	// :group), resolved in the container's own passwd and group.
	Spec                  *specs.Spec
	HelperPath            string   // the init (package runinit): something that can be executed and not written
	HelperArgs            []string // its arguments, argv[0] first
	Stdin, Stdout, Stderr *os.File // without a terminal; the caller keeps them and closes its copies
	Init                  bool     // the init stays as pid 1, forwards signals and reaps

	Trace   func(step, detail string, took time.Duration) // told of each step
	Created func(pid int)                                 // called when the namespaces are there
	Ready   func() error                                  // called just before the command is executed; an error calls it off
}

// Errors of Start that have an exit code of their own in docker (127 and 126).
var (
	ErrCommandNotFound      = errors.New("command not found")
	ErrCommandNotExecutable = errors.New("command not executable")
)

// commandError is the init's word for word text, of a class.
type commandError struct {
	text  string
	class error
}

func (e *commandError) Error() string { return e.text }
func (e *commandError) Unwrap() error { return e.class }

// Process is a container's first process. Wait must be called once.
type Process struct {
	Pid     int      // as the caller's pid namespace counts
	Console *os.File // the terminal's master side, with Process.Terminal; the caller closes it

	proc *os.Process
	done chan waitResult
}

type waitResult struct {
	state *os.ProcessState
	err   error
}

// Start runs the container and returns when its command has been executed. The caller is id 0 of an outer user
// namespace (AwaitOuter). The container ends when the caller does, however that is.
func Start(ctx context.Context, cfg RunConfig) (*Process, error) {
	trace := cfg.Trace
	if trace == nil {
		trace = func(string, string, time.Duration) {}
	}
	began := time.Now()
	root, err := unix.Open(cfg.Spec.Root.Path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("root file system %s: %w", cfg.Spec.Root.Path, err)
	}
	defer unix.Close(root)
	inner, err := makeMounts(cfg.Spec, root)
	if err != nil {
		return nil, err
	}
	defer inner.close()
	filter, err := compileSeccomp(cfg.Spec.Linux.Seccomp)
	if err != nil {
		return nil, err
	}
	trace("mounts", fmt.Sprintf("%d in the outer namespace", len(cfg.Spec.Mounts)-len(inner.mounts)), time.Since(began))

	began = time.Now()
	ours, theirs, err := initproto.Pair()
	if err != nil {
		return nil, err
	}
	defer unix.Close(ours)
	p, err := cfg.clone(theirs, inner)
	unix.Close(theirs)
	if err != nil {
		return nil, err
	}
	trace("namespaces", namespaceNames(cfg.Spec), time.Since(began))
	fail := func(err error) (*Process, error) {
		_ = p.proc.Kill()
		<-p.done
		if p.Console != nil {
			p.Console.Close()
		}
		return nil, err
	}
	if cfg.Created != nil {
		cfg.Created(p.Pid)
	}
	stop := context.AfterFunc(ctx, func() { _ = p.proc.Kill() })
	defer stop()

	began = time.Now()
	c := initproto.Config{Spec: cfg.Spec, Init: cfg.Init, Inner: inner.mounts, InnerFD: inner.childFDs(), Seccomp: filter.program, Log: filter.log}
	if err := initproto.Send(ours, c, -1); err != nil {
		return fail(fmt.Errorf("tell the init what to do: %w", err))
	}
	for {
		var m initproto.Message
		file, err := initproto.Receive(ours, &m)
		if errors.Is(err, initproto.ErrClosed) {
			// Executing the command closed the socket: it runs. But an init that was killed closed it too.
			if exited(p) {
				return fail(errors.New("the container's init was killed before it could execute the command"))
			}
			trace("start", fmt.Sprintf("process %d", p.Pid), time.Since(began))
			return p, nil
		}
		if err != nil {
			return fail(fmt.Errorf("hear from the init: %w", err))
		}
		switch m.Kind {
		case initproto.Step:
			trace(m.Text, "in the container", time.Duration(m.Nanoseconds))
		case initproto.Console:
			p.Console = os.NewFile(uintptr(file), "console")
		case initproto.Ready:
			if cfg.Ready != nil {
				if err := cfg.Ready(); err != nil {
					return fail(err)
				}
			}
			began = time.Now()
			if err := initproto.Send(ours, struct{}{}, -1); err != nil {
				return fail(fmt.Errorf("tell the init to go on: %w", err))
			}
		case initproto.Failed:
			e := &commandError{text: m.Text}
			switch {
			case m.NotFound:
				e.class = ErrCommandNotFound
			case m.NoExec:
				e.class = ErrCommandNotExecutable
			}
			return fail(e)
		}
	}
}

// exited says whether the process has ended, without reaping it.
func exited(p *Process) bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, p.Pid, &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil)
	return err != nil || info.Signo != 0
}

func (in *innerMounts) childFDs() []int {
	fds := make([]int, len(in.fds))
	next := initproto.Fd + 1
	for i, fd := range in.fds {
		fds[i] = -1
		if fd >= 0 {
			fds[i] = next
			next++
		}
	}
	return fds
}

var cloneFlags = map[specs.LinuxNamespaceType]uintptr{
	specs.UserNamespace: unix.CLONE_NEWUSER, specs.MountNamespace: unix.CLONE_NEWNS, specs.PIDNamespace: unix.CLONE_NEWPID,
	specs.IPCNamespace: unix.CLONE_NEWIPC, specs.UTSNamespace: unix.CLONE_NEWUTS, specs.NetworkNamespace: unix.CLONE_NEWNET,
	specs.CgroupNamespace: unix.CLONE_NEWCGROUP,
}

func namespaceNames(spec *specs.Spec) string {
	text := ""
	for i, n := range spec.Linux.Namespaces {
		if i > 0 {
			text += " "
		}
		text += string(n.Type)
	}
	return text
}

// clone starts the init in all the namespaces. A goroutine of its own does it and stays on its thread until the
// process has ended: the parent-death signal is sent when the parent *thread* ends (PR_SET_PDEATHSIG(2const)).
func (cfg RunConfig) clone(socket int, inner *innerMounts) (*Process, error) {
	setgroups := readSysctl("/proc/self/setgroups") == "allow"
	a := &syscall.SysProcAttr{
		UidMappings: sysMaps(cfg.Spec.Linux.UIDMappings), GidMappings: sysMaps(cfg.Spec.Linux.GIDMappings),
		GidMappingsEnableSetgroups: setgroups,
		// Id 0 of the inner namespace need not be the caller's own id.
		Credential: &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: !setgroups},
		Setsid:     true, Pdeathsig: syscall.SIGKILL,
	}
	for _, n := range cfg.Spec.Linux.Namespaces {
		if n.Path != "" {
			return nil, fmt.Errorf("namespace %s: joining %s is not supported", n.Type, n.Path)
		}
		a.Cloneflags |= cloneFlags[n.Type]
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	files := []*os.File{null, null, null}
	if !cfg.Spec.Process.Terminal {
		for i, f := range []*os.File{cfg.Stdin, cfg.Stdout, cfg.Stderr} {
			if f != nil {
				files[i] = f
			}
		}
	}
	files = append(files, os.NewFile(uintptr(must(unix.FcntlInt(uintptr(socket), unix.F_DUPFD_CLOEXEC, 0))), "init"))
	defer files[3].Close()
	for _, fd := range inner.fds {
		if fd >= 0 {
			f := os.NewFile(uintptr(must(unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0))), "mount")
			defer f.Close()
			files = append(files, f)
		}
	}
	p := &Process{done: make(chan waitResult, 1)}
	started := make(chan error)
	// The init finds the root as its working folder: a path to it may lead through folders of the caller's that the
	// container's root may not enter, and a descriptor would be of the wrong mount namespace.
	if err := os.Chdir(cfg.Spec.Root.Path); err != nil {
		return nil, err
	}
	defer os.Chdir("/")
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		var err error
		p.proc, err = os.StartProcess(cfg.HelperPath, cfg.HelperArgs, &os.ProcAttr{Env: []string{}, Files: files, Sys: a})
		started <- err
		if err != nil {
			return
		}
		state, err := p.proc.Wait()
		p.done <- waitResult{state, err}
	}()
	if err := <-started; err != nil {
		return nil, namespaceError(err)
	}
	p.Pid = p.proc.Pid
	return p, nil
}

// must is for calls that fail only when the process is out of descriptors, which Go's own calls report better.
func must(fd int, err error) int {
	if err != nil {
		return -1
	}
	return fd
}

// Wait returns how the process ended: its exit code, or the signal that killed it.
func (p *Process) Wait() (code int, sig syscall.Signal, err error) {
	r := <-p.done
	if r.err != nil {
		return 255, 0, r.err
	}
	ws := r.state.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return 0, ws.Signal(), nil
	}
	return ws.ExitStatus(), 0, nil
}

// Signal sends a signal to the process; the kernel's pidfd makes sure that it is no other one.
func (p *Process) Signal(sig syscall.Signal) error {
	err := p.proc.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Resize tells the terminal its size.
func (p *Process) Resize(rows, cols uint16) error {
	if p.Console == nil {
		return nil
	}
	raw, err := p.Console.SyscallConn()
	if err != nil {
		return err
	}
	var ierr error
	err = raw.Control(func(fd uintptr) {
		ierr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
	return errors.Join(err, ierr)
}
