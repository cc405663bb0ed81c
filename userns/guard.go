package userns

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/moss-run/moss/userns/initproto"
)

// guardDelay is how long a container lives before it gets its guard: most that end sooner never change their user, and
// need not pay for another process.
const guardDelay = 100 * time.Millisecond

// guardLater ties the container to this process for good. The parent-death signal alone does not: the kernel forgets it
// when the command changes its user (prctl(2)), which is the first thing that the entry points of many images do. A
// small process that never changes anything waits for the end of either side, and kills the container when it was ours.
// The reaper of --init, which keeps its user, needs no guard.
func (p *Process) guardLater(cfg RunConfig) {
	if cfg.Init {
		return
	}
	time.AfterFunc(guardDelay, func() {
		if err := guard(cfg, p); err != nil {
			fmt.Fprintln(os.Stderr, "start the container's guard:", err)
		}
	})
}

func guard(cfg RunConfig, p *Process) error {
	var target *os.File
	var derr error
	err := p.proc.WithHandle(func(pidfd uintptr) {
		var fd int
		if fd, derr = unix.FcntlInt(pidfd, unix.F_DUPFD_CLOEXEC, 3); derr == nil {
			target = os.NewFile(uintptr(fd), "pidfd")
		}
	})
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err = errors.Join(err, derr); err != nil {
		return fmt.Errorf("pidfd of process %d: %w", p.Pid, err)
	}
	defer target.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		w.Close()
		return err
	}
	defer null.Close()
	args := append(append([]string{}, cfg.HelperArgs...), initproto.GuardStage)
	proc, err := os.StartProcess(cfg.HelperPath, args, &os.ProcAttr{
		Dir: "/", Env: []string{}, Files: []*os.File{null, null, null, target, r}, Sys: &syscall.SysProcAttr{Setsid: true}})
	if err != nil {
		w.Close()
		return err
	}
	go func() { // the guard ends with the container; the pipe is open for as long as this process lives or the guard does
		_, _ = proc.Wait()
		w.Close()
	}()
	return nil
}
