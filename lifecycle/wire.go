package lifecycle

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"sync"
)

// The monitor and its callers speak in frames over a unix stream socket: one byte of kind, four bytes of length
// (big endian), the payload. Streams travel as they are; everything else is JSON.
type frameKind byte

const (
	// From the caller.
	frameHello  frameKind = 1 // Hello: what the connection is for; the first frame, once
	frameStdin  frameKind = 2 // bytes; empty: end of input
	frameResize frameKind = 3 // Size
	frameSignal frameKind = 4 // Signal
	// From the monitor.
	frameTrace   frameKind = 16 // Step
	frameStarted frameKind = 17 // empty: the container's process runs
	frameFailed  frameKind = 18 // Failure: it does not run, and why; nothing follows
	frameStdout  frameKind = 19 // bytes
	frameStderr  frameKind = 20 // bytes
	frameExit    frameKind = 21 // Exit: it ended, its record is written (and removed, with --rm)
	frameDone    frameKind = 22 // Failure, empty when all is well: the answer to a signal
)

// maxFrame bounds a frame: streams are cut into pieces of at most 64 KiB, and no message is larger.
const maxFrame = 1 << 20

// Hello opens a connection.
type Hello struct {
	Stdin, Stdout, Stderr bool // streams that the caller wants
	Rows, Cols            uint16
	Trace                 bool
	Wait                  bool // wants the Exit frame
}

// Size is a terminal's.
type Size struct{ Rows, Cols uint16 }

// Signal asks the monitor to send one to the container's first process.
type Signal struct{ Number int }

// Step is one step of a start, for --trace.
type Step struct {
	Name, Detail string
	Nanoseconds  int64
}

// Failure says why a container did not start. Code is docker's exit code for it: 125, 126 or 127.
type Failure struct {
	Message string
	Code    int
}

// Exit is how a container's process ended.
type Exit struct {
	Code     int
	Detached bool `json:"-"` // the caller left by the detach keys; the container runs on
}

// Conn is one end of a connection in frames. Send may be called from several goroutines, Receive from one.
type Conn struct {
	c    net.Conn
	mu   sync.Mutex // guards writes
	head [5]byte
}

// NewConn speaks frames over c, which it owns from then on.
func NewConn(c net.Conn) *Conn { return &Conn{c: c} }

// Close ends the connection.
func (c *Conn) Close() error { return c.c.Close() }

func (c *Conn) sendBytes(kind frameKind, b []byte) error {
	var head [5]byte
	head[0] = byte(kind)
	binary.BigEndian.PutUint32(head[1:], uint32(len(b)))
	c.mu.Lock()
	defer c.mu.Unlock()
	bufs := net.Buffers{head[:], b}
	_, err := bufs.WriteTo(c.c)
	return err
}

func (c *Conn) sendJSON(kind frameKind, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.sendBytes(kind, b)
}

// receive reads one frame.
func (c *Conn) receive() (frameKind, []byte, error) {
	if _, err := io.ReadFull(c.c, c.head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(c.head[1:])
	if n > maxFrame {
		return 0, nil, fmt.Errorf("frame of %d bytes from the other side: not moss's protocol", n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(c.c, b); err != nil {
		return 0, nil, fmt.Errorf("connection cut in mid-frame: %w", err)
	}
	return frameKind(c.head[0]), b, nil
}

// streamWriter sends what is written to it as frames of one kind.
type streamWriter struct {
	c    *Conn
	kind frameKind
}

func (w streamWriter) Write(b []byte) (int, error) {
	n := 0
	for len(b) > 0 {
		part := b[:min(len(b), 64<<10)]
		if err := w.c.sendBytes(w.kind, part); err != nil {
			return n, err
		}
		n += len(part)
		b = b[len(part):]
	}
	return n, nil
}
