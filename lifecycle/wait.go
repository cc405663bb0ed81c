package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

// dial connects to the monitor of a running container.
func (e *Engine) dial(id string, h Hello) (*Conn, error) {
	run, err := containerRunDir(id)
	if err != nil {
		return nil, err
	}
	c, err := dialSocket(filepath.Join(run, "monitor.sock"))
	if err != nil {
		return nil, failure(errdefs.ErrUnavailable, "the monitor of container %s does not answer: %w", id[:12], err)
	}
	conn := NewConn(c)
	if err := conn.sendJSON(frameHello, h); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// A socket's path holds at most 107 bytes (unix(7)), and a runtime folder may be deeper: the folder is opened, and
// the path goes through its descriptor.
func dialSocket(path string) (net.Conn, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return net.DialTimeout("unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)), 5*time.Second)
}

func listenSocket(path string) (*net.UnixListener, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // the path through the descriptor is not valid any more then
	return l, nil
}

// Wait returns the exit code of a container's process, once it has ended. A container that was made and never ran is
// waited for until it has run and ended, as docker does.
func (e *Engine) Wait(ctx context.Context, nameOrID string) (int, error) {
	id, err := e.find(nameOrID)
	if err != nil {
		return 0, err
	}
	for {
		st, err := e.state(id)
		if err != nil {
			return 0, err
		}
		switch st.Status {
		case container.StateRunning:
			if code, err := e.waitRunning(ctx, id); err == nil || ctx.Err() != nil {
				return code, err
			}
			// The monitor ended before it could be asked, or was killed: its record, or the lack of one, tells.
			if err := e.awaitLock(ctx, id); err != nil {
				return 0, err
			}
		case container.StateCreated:
			w, err := watchFolder(string(e.dir(id)))
			if err != nil {
				return 0, err
			}
			err = w.Wait(ctx, time.Second)
			w.Close()
			if err != nil {
				return 0, err
			}
		default:
			return st.ExitCode, nil
		}
	}
}

func (e *Engine) waitRunning(ctx context.Context, id string) (int, error) {
	conn, err := e.dial(id, Hello{Wait: true})
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	for {
		kind, b, err := conn.receive()
		if err != nil {
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
			return 0, err
		}
		if kind == frameExit {
			var x Exit
			return x.Code, json.Unmarshal(b, &x)
		}
	}
}

// awaitLock waits until the container's monitor has let its lock go, which it does by ending.
func (e *Engine) awaitLock(ctx context.Context, id string) error {
	f, err := os.Open(e.dir(id).lock())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	done := make(chan error, 1)
	go func() { done <- flockBlocking(f) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lockPatience is how long a command waits for another one to be done with a container.
const lockPatience = 5 * time.Second

// lockSoon takes the lock of a container that does not run but whose lock is held: its monitor has just ended or failed
// to start it, and is about to let go.
func (e *Engine) lockSoon(ctx context.Context, id string) (*os.File, bool, error) {
	wait, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	if err := e.awaitLock(wait, id); err != nil {
		return nil, false, ctx.Err()
	}
	return lockDir(e.dir(id))
}

func flockBlocking(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_SH)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
