package lifecycle

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
)

// hub is the monitor's side of the container's streams: what the process writes goes to the log and to everybody who
// is attached; what one attached caller types goes to the process.
type hub struct {
	mu      sync.Mutex
	clients map[*client]struct{}
	exit    *Exit // set when the container has ended
	stdin   io.WriteCloser
	console *os.File // with a terminal
	stdinOf *client  // with StdinOnce: whose end closes stdin
	once    bool     // StdinOnce
	signal  func(syscall.Signal) error
	resize  func(rows, cols uint16) error
}

// client is one connection.
type client struct {
	conn  *Conn
	hello Hello
}

func newHub() *hub { return &hub{clients: map[*client]struct{}{}} }

// join adds a connection whose Hello was read. One that comes after the end is told of it at once.
func (h *hub) join(c *client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.exit != nil {
		if c.hello.Wait {
			_ = c.conn.sendJSON(frameExit, *h.exit)
		}
		return
	}
	h.clients[c] = struct{}{}
	if c.hello.Stdin && h.stdinOf == nil {
		h.stdinOf = c
	}
}

func (h *hub) leave(c *client) {
	h.mu.Lock()
	delete(h.clients, c)
	mine := h.stdinOf == c
	if mine {
		h.stdinOf = nil
	}
	stdin := h.stdin
	h.mu.Unlock()
	if mine && h.once && stdin != nil && h.console == nil {
		stdin.Close()
	}
}

// serve reads a connection until it ends.
func (h *hub) serve(c *client) {
	defer h.leave(c)
	for {
		kind, b, err := c.conn.receive()
		if err != nil {
			return
		}
		switch kind {
		case frameStdin:
			h.typed(c, b)
		case frameResize:
			var s Size
			if json.Unmarshal(b, &s) == nil {
				h.mu.Lock()
				resize := h.resize
				h.mu.Unlock()
				if resize != nil {
					_ = resize(s.Rows, s.Cols)
				}
			}
		case frameSignal:
			var s Signal
			var f Failure
			if err := json.Unmarshal(b, &s); err != nil {
				f.Message = err.Error()
			} else if err := h.kill(syscall.Signal(s.Number)); err != nil {
				f.Message = err.Error()
			}
			_ = c.conn.sendJSON(frameDone, f)
		}
	}
}

func (h *hub) kill(sig syscall.Signal) error {
	h.mu.Lock()
	signal := h.signal
	h.mu.Unlock()
	if signal == nil {
		return errors.New("the container's process does not run yet")
	}
	return signal(sig)
}

// typed hands input to the process. A process that does not read makes the caller wait, as a pipe would.
func (h *hub) typed(c *client, b []byte) {
	h.mu.Lock()
	stdin, console := h.stdin, h.console
	h.mu.Unlock()
	if stdin == nil || !c.hello.Stdin {
		return
	}
	if len(b) > 0 {
		_, _ = stdin.Write(b)
		return
	}
	if console == nil {
		stdin.Close() // the end of input is told by a terminal's own end-of-file character otherwise
	}
}

// Write-side: each stream has a hubStream.
type hubStream struct {
	h    *hub
	kind frameKind
}

// Write hands output to everybody attached to the stream. A caller that has gone is dropped; one that does not read
// holds the container up, as a pipe would.
func (s hubStream) Write(b []byte) (int, error) {
	s.h.mu.Lock()
	var to []*client
	for c := range s.h.clients {
		if s.kind == frameStdout && c.hello.Stdout || s.kind == frameStderr && c.hello.Stderr {
			to = append(to, c)
		}
	}
	s.h.mu.Unlock()
	for _, c := range to {
		if _, err := (streamWriter{c.conn, s.kind}).Write(b); err != nil {
			s.h.leave(c)
		}
	}
	return len(b), nil
}

// finish tells everybody who waits that the container has ended.
func (h *hub) finish(x Exit) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.exit = &x
	for c := range h.clients {
		if c.hello.Wait {
			_ = c.conn.sendJSON(frameExit, x)
		}
	}
}
