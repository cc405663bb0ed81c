package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/sys/signal"
)

// defaultStopTimeout is docker's patience between the stop signal and SIGKILL.
const defaultStopTimeout = 10 * time.Second

// Stop asks the container's process to end, and kills it when it has not by the timeout. Stopping what does not run
// is no error.
func (e *Engine) Stop(ctx context.Context, nameOrID string, o StopOptions) error {
	id, err := e.find(nameOrID)
	if err != nil {
		return err
	}
	c, err := e.load(id)
	if err != nil {
		return err
	}
	if c.state.Status != container.StateRunning {
		return nil
	}
	if err := c.reachable(); err != nil {
		return err
	}
	sig, err := stopSignal(c.rec, o.Signal)
	if err != nil {
		return err
	}
	timeout := defaultStopTimeout
	if t := c.rec.Config.StopTimeout; t != nil {
		timeout = time.Duration(*t) * time.Second
	}
	if o.Timeout != nil {
		timeout = time.Duration(*o.Timeout) * time.Second
	}
	if timeout != 0 {
		if err := e.signal(id, sig); err != nil && e.running(id) {
			return fmt.Errorf("cannot stop container: %s: %w", nameOrID, err)
		}
		wait, cancel := ctx, context.CancelFunc(func() {})
		if timeout > 0 {
			wait, cancel = context.WithTimeout(ctx, timeout)
		}
		err := e.awaitLock(wait, id)
		cancel()
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return e.kill(ctx, id)
}

// Kill sends a signal (docker's spelling; empty: SIGKILL) to the container's process. With SIGKILL it returns when the
// container has ended.
func (e *Engine) Kill(ctx context.Context, nameOrID, name string) error {
	id, err := e.find(nameOrID)
	if err != nil {
		return err
	}
	sig := syscall.SIGKILL
	if name != "" {
		if sig, err = signal.ParseSignal(name); err != nil {
			return failure(errdefs.ErrInvalidArgument, "%w", err)
		}
	}
	c, err := e.load(id)
	if err != nil {
		return err
	}
	if c.state.Status != container.StateRunning {
		return failure(errdefs.ErrConflict, "cannot kill container: %s: container %s is not running", nameOrID, id)
	}
	if err := c.reachable(); err != nil {
		return err
	}
	if sig == syscall.SIGKILL {
		return e.kill(ctx, id)
	}
	return e.signal(id, sig)
}

// reachable is an error where the container's monitor is not this host's.
func (c *full) reachable() error {
	if c.state.Monitor.elsewhere() {
		return failure(errdefs.ErrUnavailable, "container %s runs on host %s: do this there", c.rec.Name, c.state.Monitor.Host)
	}
	return nil
}

func stopSignal(r *Record, name string) (syscall.Signal, error) {
	if name == "" {
		name = r.Config.StopSignal
	}
	if name == "" {
		return syscall.SIGTERM, nil
	}
	sig, err := signal.ParseSignal(name)
	if err != nil {
		return 0, failure(errdefs.ErrInvalidArgument, "%w", err)
	}
	return sig, nil
}

// signal has the monitor send sig. The monitor does it, and not the caller, because the container's processes may
// belong to ids of the caller's subordinate range, which only the monitor's user namespace has power over.
func (e *Engine) signal(id string, sig syscall.Signal) error {
	conn, err := e.dial(id, Hello{})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.sendJSON(frameSignal, Signal{Number: int(sig)}); err != nil {
		return err
	}
	for {
		kind, b, err := conn.receive()
		if err != nil {
			return failure(errdefs.ErrUnavailable, "the container's monitor went away: %w", err)
		}
		if kind == frameDone {
			var f Failure
			if err := json.Unmarshal(b, &f); err != nil {
				return err
			}
			if f.Message != "" {
				return errors.New(f.Message)
			}
			return nil
		}
	}
}

// killPatience is how long a monitor may take to answer SIGKILL before it is killed itself.
const killPatience = 10 * time.Second

// kill ends the container for certain: by its monitor, or, where that does not answer, with its monitor.
func (e *Engine) kill(ctx context.Context, id string) error {
	err := e.signal(id, syscall.SIGKILL)
	if err == nil || !e.running(id) {
		wait, cancel := context.WithTimeout(ctx, killPatience)
		defer cancel()
		if err := e.awaitLock(wait, id); err == nil {
			return nil
		} else if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	st, rerr := e.dir(id).ReadState()
	if rerr != nil || !st.Monitor.alive() {
		return nil
	}
	if err := syscall.Kill(st.Monitor.Pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill the monitor of container %s (process %d): %w", id[:12], st.Monitor.Pid, err)
	}
	return e.awaitLock(ctx, id)
}
