// Package runinit is the first moments of a container's pid 1: it is executed by package userns in the container's
// namespaces, does what can only be done from inside, and becomes the container's command. It is a program of its own
// because Go pays for the initialisation of every linked package at each exec.
//
// The order matters, and is that of Main: mounts while the host's /proc is still there, then the change of root, what
// needs power (sysctls, masks), the terminal, the user, and last of all capabilities and seccomp, after which the
// command is executed.
package runinit

import (
	"errors"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/moss-run/moss/userns/initproto"
)

// Main never returns.
func Main() {
	// Credentials, capabilities and seccomp belong to a thread; the thread that has them all executes the command.
	runtime.LockOSThread()
	stage := ""
	if len(os.Args) > 1 {
		stage = os.Args[1]
	}
	if stage == initproto.GuardStage {
		guard()
	}
	s := session{fd: initproto.Fd}
	unix.CloseOnExec(initproto.Fd)
	var err error
	if stage == initproto.CommandStage {
		err = s.command()
	} else {
		err = s.container()
	}
	// Only failures come here.
	m := initproto.Message{Kind: initproto.Failed, Text: err.Error()}
	var cmd *commandError
	if errors.As(err, &cmd) {
		m.NotFound, m.NoExec = cmd.notFound, !cmd.notFound
	}
	_ = initproto.Send(s.fd, m, -1)
	os.Exit(125)
}

// session is the connection with the starter.
type session struct {
	fd    int
	cfg   initproto.Config
	began time.Time
}

func (s *session) step(name string) {
	_ = initproto.Send(s.fd, initproto.Message{Kind: initproto.Step, Text: name, Nanoseconds: int64(time.Since(s.began))}, -1)
	s.began = time.Now()
}

func (s *session) receive() error {
	if _, err := initproto.Receive(s.fd, &s.cfg); err != nil {
		return err
	}
	s.began = time.Now()
	mask := 0o022
	if m := s.cfg.Spec.Process.User.Umask; m != nil {
		mask = int(*m)
	}
	unix.Umask(mask)
	return nil
}

// container sets the container up, and becomes its command, or the reaper of it.
func (s *session) container() error {
	if err := s.receive(); err != nil {
		return err
	}
	spec := s.cfg.Spec
	if err := setNames(spec); err != nil { // uts namespace
		return err
	}
	if err := loopbackUp(spec); err != nil {
		return err
	}
	if err := newSessionKeyring(); err != nil {
		return err
	}
	if err := s.mountInside(); err != nil {
		return err
	}
	if err := writeSysctls(spec); err != nil { // needs a writable /proc/sys
		return err
	}
	if err := protect(spec); err != nil { // masks, read-only paths, read-only root
		return err
	}
	s.step("inside")
	if spec.Process.Terminal {
		if err := s.terminal(); err != nil {
			return err
		}
	}
	if s.cfg.Init {
		return s.reap()
	}
	return s.become()
}

// command is the second stage below the reaper: everything is set up but the process itself.
func (s *session) command() error {
	if err := s.receive(); err != nil {
		return err
	}
	return s.become()
}
