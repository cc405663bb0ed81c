// Package initproto is what the starter of a container and its init say to each other, over one unix socket pair that
// the init inherits as descriptor 3: a Config to the init, then Messages from it, and a byte
// back where it has to wait. Files travel beside a message (SCM_RIGHTS).
package initproto

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Fd is the init's end of the socket.
const Fd = 3

// Arguments that give the init's program another part. Without one it sets a container up.
const (
	// CommandStage: below the reaper, become the command. Descriptor Fd is a socket to the reaper.
	CommandStage = "command"
	// GuardStage: end the container when the monitor ends. Descriptor 3 is a pidfd of the container's first process, and 4
	// the end of a pipe whose other end the monitor alone holds.
	GuardStage = "guard"
)

// Config is all that the init has to know.
type Config struct {
	Spec    *specs.Spec
	Init    bool          // stay as pid 1 and reap
	Inner   []specs.Mount // mounts that can only be made inside, in order
	InnerFD []int         // for each of them: an open detached mount to move there, or -1
	Seccomp []byte        // a BPF program, sock_filter after sock_filter
	Log     bool          // the seccomp filter logs what it refuses
}

// Kinds of messages.
const (
	Ready     = "ready"     // all is set up; the init waits for a byte before it executes the command
	Failed    = "failed"    // it will not run, and why
	Executing = "executing" // said last: the socket's end then means that the command runs
	Console   = "console"   // the terminal's master side, beside the message
	Step      = "step"      // one step of the set-up has ended
)

// Message is what the init tells.
type Message struct {
	Kind        string
	Text        string `json:",omitempty"` // Failed: why. Step: its name
	NotFound    bool   `json:",omitempty"` // Failed: there is no such command
	NoExec      bool   `json:",omitempty"` // Failed: the command cannot be executed
	Nanoseconds int64  `json:",omitempty"`
}

// maxPacket bounds one message. A seccomp filter has at most 4096 instructions of 8 bytes, a spec a few hundred KiB of
// environment and arguments (the kernel's own limit for an exec is 2 MiB).
const maxPacket = 4 << 20

// Pair makes the socket pair, close-on-exec on both sides.
func Pair() (ours, theirs int, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("socketpair: %w", err)
	}
	return p[0], p[1], nil
}

// Send writes v as one message: four bytes of length, then JSON. file is passed beside it unless it is negative.
func Send(fd int, v any, file int) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	n := len(b)
	b = append([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, b...)
	var rights []byte
	if file >= 0 {
		rights = unix.UnixRights(file)
	}
	for len(b) > 0 {
		n, err := unix.SendmsgN(fd, b, rights, nil, unix.MSG_NOSIGNAL)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		b, rights = b[n:], nil
	}
	return nil
}

// ErrClosed is the end of the other side.
var ErrClosed = errors.New("the other side has closed the socket")

// Receive reads one message into v. file is what came beside it, or -1; the caller owns it.
func Receive(fd int, v any) (file int, err error) {
	var head [4]byte
	file, err = readFull(fd, head[:])
	if err != nil {
		return file, err
	}
	n := int(head[0])<<24 | int(head[1])<<16 | int(head[2])<<8 | int(head[3])
	if n > maxPacket {
		return file, fmt.Errorf("message of %d bytes: not moss's protocol", n)
	}
	b := make([]byte, n)
	if _, err := readFull(fd, b); err != nil {
		return file, err
	}
	return file, json.Unmarshal(b, v)
}

func readFull(fd int, b []byte) (file int, err error) {
	file = -1
	oob := make([]byte, unix.CmsgSpace(4))
	for len(b) > 0 {
		n, on, _, _, err := unix.Recvmsg(fd, b, oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return file, err
		}
		if on > 0 {
			if msgs, err := unix.ParseSocketControlMessage(oob[:on]); err == nil && len(msgs) == 1 {
				if fds, err := unix.ParseUnixRights(&msgs[0]); err == nil && len(fds) == 1 {
					file = fds[0]
				}
			}
		}
		if n == 0 {
			return file, ErrClosed
		}
		b = b[n:]
	}
	return file, nil
}
