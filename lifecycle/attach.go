package lifecycle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/term"
)

// Session is a caller's connection to a container that was started.
type Session struct {
	ID   string
	conn *Conn
	opt  *AttachOptions

	detached chan struct{} // closed by the detach keys
	once     sync.Once
}

// StartError says that a container did not start. Code is docker's exit code for it: 126 when the command cannot be
// executed, 127 when there is none, 125 for everything else.
type StartError struct {
	Message string
	Code    int
}

func (e *StartError) Error() string { return e.Message }

// awaitStart reads until the container runs or has failed to. Steps are handed to trace.
func (s *Session) awaitStart(trace TraceFunc) error {
	for {
		kind, b, err := s.conn.receive()
		if err != nil {
			return fmt.Errorf("the container's monitor ended before it could say why; see its monitor.log: %w", err)
		}
		switch kind {
		case frameTrace:
			passStep(trace, b)
		case frameStarted:
			return nil
		case frameFailed:
			var f Failure
			if err := json.Unmarshal(b, &f); err != nil {
				return err
			}
			return &StartError{Message: f.Message, Code: f.Code}
		}
	}
}

func passStep(trace TraceFunc, b []byte) {
	var st Step
	if trace != nil && json.Unmarshal(b, &st) == nil {
		trace(st.Name, st.Detail, time.Duration(st.Nanoseconds))
	}
}

// Signal sends a signal to the container's first process.
func (s *Session) Signal(sig syscall.Signal) error {
	return s.conn.sendJSON(frameSignal, Signal{Number: int(sig)})
}

// Resize tells the container's terminal its new size.
func (s *Session) Resize(rows, cols uint16) error {
	return s.conn.sendJSON(frameResize, Size{Rows: rows, Cols: cols})
}

// Close leaves the container to itself.
func (s *Session) Close() error { return s.conn.Close() }

// Wait relays the streams until the container has ended, or the caller has detached. It returns errdefs.ErrUnavailable
// when the monitor was killed.
func (s *Session) Wait(trace TraceFunc) (Exit, error) {
	if s.opt != nil && s.opt.Stdin != nil {
		go s.pumpStdin()
	}
	type result struct {
		exit Exit
		err  error
	}
	done := make(chan result, 1)
	go func() {
		exit, err := s.relay(trace)
		done <- result{exit, err}
	}()
	select {
	case r := <-done:
		return r.exit, r.err
	case <-s.detached:
		s.conn.Close()
		return Exit{Detached: true}, nil
	}
}

// relay hands the container's output on. When its reader has gone, the container is told as any program that writes
// to a pipe is, by SIGPIPE; what comes still is dropped, and the container's end awaited.
func (s *Session) relay(trace TraceFunc) (Exit, error) {
	var out, errw io.Writer
	if s.opt != nil {
		out, errw = s.opt.Stdout, s.opt.Stderr
	}
	for {
		kind, b, err := s.conn.receive()
		if err != nil {
			return Exit{}, failure(errdefs.ErrUnavailable, "the container's monitor was killed, and the container with it")
		}
		switch kind {
		case frameStdout:
			if out != nil {
				if _, err := out.Write(b); err != nil {
					out = nil
					_ = s.Signal(syscall.SIGPIPE)
				}
			}
		case frameStderr:
			if errw != nil {
				if _, err := errw.Write(b); err != nil {
					errw = nil
					_ = s.Signal(syscall.SIGPIPE)
				}
			}
		case frameTrace:
			passStep(trace, b)
		case frameExit:
			var x Exit
			return x, json.Unmarshal(b, &x)
		}
	}
}

// pumpStdin sends what the caller types. It is not waited for: a read from a terminal cannot be called off.
func (s *Session) pumpStdin() {
	in := s.opt.Stdin
	if s.opt.TTY && len(s.opt.DetachKeys) > 0 {
		in = term.NewEscapeProxy(in, s.opt.DetachKeys)
	}
	_, err := io.Copy(streamWriter{s.conn, frameStdin}, onlyReader{in})
	var escape term.EscapeError
	if errors.As(err, &escape) {
		s.once.Do(func() { close(s.detached) })
		return
	}
	_ = s.conn.sendBytes(frameStdin, nil)
}

// onlyReader hides WriteTo, so that io.Copy's buffer bounds the frames.
type onlyReader struct{ io.Reader }
