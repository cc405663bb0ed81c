package userns

import (
	"context"
	"errors"
	"fmt"
	"os"
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
	Spec       *specs.Spec
	HelperPath string   // the init (package runinit): something that can be executed and not written
	HelperArgs []string // its arguments, argv[0] first
	// Stdin, Stdout and Stderr are the command's without a terminal; the caller closes its own copies. Pipes and sockets
	// among them are given to the command's user, so that it can open /dev/stdout.
	Stdin, Stdout, Stderr *os.File
	Init                  bool // the init stays as pid 1, forwards signals and reaps

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
	if err := supported(cfg.Spec); err != nil {
		return nil, err
	}
	ours, theirs, err := initproto.Pair()
	if err != nil {
		return nil, err
	}
	defer unix.Close(ours)
	cloning := cfg.clone(theirs, trace)
	// Compiling takes as long as the mounts do.
	filter, ferr := compileSeccomp(cfg.Spec.Linux.Seccomp)
	c := <-cloning
	if c.err != nil {
		return nil, c.err
	}
	p := c.process
	fail := func(err error) (*Process, error) {
		_ = p.proc.Kill()
		<-p.done
		if p.Console != nil {
			p.Console.Close()
		}
		return nil, err
	}
	if ferr != nil {
		return fail(ferr)
	}
	if cfg.Created != nil {
		cfg.Created(p.Pid)
	}
	stop := context.AfterFunc(ctx, func() { _ = p.proc.Kill() })
	defer stop()

	began := time.Now()
	message := initproto.Config{Spec: cfg.Spec, Init: cfg.Init, Inner: c.inner, InnerFD: c.innerFDs, Seccomp: filter.program, Log: filter.log}
	if err := initproto.Send(ours, message, -1); err != nil {
		return fail(fmt.Errorf("tell the init what to do: %w", err))
	}
	executing := false
	for {
		var m initproto.Message
		file, err := initproto.Receive(ours, &m)
		if gone := errors.Is(err, initproto.ErrClosed) || errors.Is(err, unix.ECONNRESET); gone && executing {
			// Executing the command closed the socket.
			p.guardLater(cfg)
			trace("start", fmt.Sprintf("process %d", p.Pid), time.Since(began))
			return p, nil
		} else if gone && ctx.Err() != nil {
			return fail(ctx.Err())
		} else if gone {
			return fail(errors.New("the container's init was killed before it could execute the command"))
		}
		if err != nil {
			return fail(fmt.Errorf("hear from the init: %w", err))
		}
		switch m.Kind {
		case initproto.Step:
			trace(m.Text, "in the container", time.Duration(m.Nanoseconds))
		case initproto.Console:
			if file < 0 {
				return fail(errors.New("the init sent no terminal: this process may be out of descriptors (ulimit -n)"))
			}
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
		case initproto.Executing:
			executing = true
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

// supported refuses what a spec may ask for and nobody here does, rather than run without it.
func supported(spec *specs.Spec) error {
	switch {
	case spec.Root == nil, spec.Process == nil, len(spec.Process.Args) == 0, spec.Linux == nil:
		return errors.New("the spec has no root, no process with arguments, or no linux part")
	case spec.Hooks != nil:
		return errors.New("hooks of an OCI spec are not supported")
	case spec.Process.ApparmorProfile != "", spec.Process.SelinuxLabel != "":
		return errors.New("AppArmor profiles and SELinux labels are not supported")
	case len(spec.Linux.Devices) > 0:
		return errors.New("device nodes cannot be made without root: bind them from the host's /dev")
	}
	return nil
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
