package runinit

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/moss-run/moss/userns/initproto"
)

// reap stays as pid 1 (docker's --init): a second process of this program becomes the command; this one hands signals
// on to it, collects every orphan of the container, and ends as the command ends.
func (s *session) reap() error {
	ours, theirs, err := initproto.Pair()
	if err != nil {
		return err
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 128)
	signal.Notify(signals)
	files := []uintptr{0, 1, 2, uintptr(theirs)}
	attr := &syscall.ProcAttr{Dir: "/", Files: files, Sys: &syscall.SysProcAttr{Setsid: true}}
	if s.cfg.Spec.Process.Terminal {
		attr.Sys.Setctty, attr.Sys.Ctty = true, 0
	}
	pid, err := syscall.ForkExec(fmt.Sprintf("/proc/self/fd/%d", self.Fd()), []string{os.Args[0], initproto.CommandStage}, attr)
	if err != nil {
		return fmt.Errorf("start the command's process: %w", err)
	}
	self.Close()
	unix.Close(theirs)
	if err := initproto.Send(ours, s.cfg, -1); err != nil {
		return fmt.Errorf("tell the command's process what to do: %w", err)
	}
	// What the second process says goes out as if it came from here; so does its silence, which means that it runs.
	for {
		var m initproto.Message
		_, err := initproto.Receive(ours, &m)
		if errors.Is(err, initproto.ErrClosed) {
			break
		}
		if err != nil {
			return err
		}
		if err := initproto.Send(s.fd, m, -1); err != nil {
			return err
		}
		switch m.Kind {
		case initproto.Failed:
			os.Exit(125)
		case initproto.Ready:
			var proceed struct{}
			if _, err := initproto.Receive(s.fd, &proceed); err != nil {
				return err
			}
			if err := s.weaken(); err != nil { // before anything of the container's runs
				return fmt.Errorf("drop the reaper's capabilities: %w", err)
			}
			if err := initproto.Send(ours, proceed, -1); err != nil {
				return err
			}
		}
	}
	unix.Close(s.fd)
	unix.Close(ours)
	go func() {
		for sig := range signals {
			switch sig := sig.(syscall.Signal); sig {
			case syscall.SIGCHLD, syscall.SIGURG, syscall.SIGPIPE:
			default:
				_ = syscall.Kill(pid, sig)
			}
		}
	}()
	for {
		var ws syscall.WaitStatus
		got, err := syscall.Wait4(-1, &ws, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			os.Exit(255)
		}
		if got != pid {
			continue
		}
		if ws.Signaled() {
			os.Exit(128 + int(ws.Signal()))
		}
		os.Exit(ws.ExitStatus())
	}
}

// weaken leaves the reaper the container's own capabilities, and the one to signal a command of any user: it lives in
// the container's sight, and must not be worth taking over.
func (s *session) weaken() error {
	var keep uint64
	if c := s.cfg.Spec.Process.Capabilities; c != nil {
		keep = capMask(c.Permitted)
	}
	keep |= 1 << unix.CAP_KILL
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: uint32(keep), Permitted: uint32(keep)}, {Effective: uint32(keep >> 32), Permitted: uint32(keep >> 32)}}
	// The runtime has threads by now, and a capability belongs to a thread.
	if _, _, e := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&data[0])), 0); e != 0 {
		return e
	}
	return nil
}
