package lifecycle

import (
	"io"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// Engine is the containers of one user below one root folder. It holds no state of its own: every call reads the
// folders. Its methods may be called concurrently, and by several processes at once.
type Engine struct {
	root     string                   // $MOSS_ROOT
	programs func() (Programs, error) // asked when something is executed
}

// Image is what a container needs to know of its image: names, and the files that its root is served from.
type Image struct {
	ID     string            // "sha256:…" of the configuration
	Name   string            // as the user wrote it
	Config *container.Config // the image's own settings, merged into the container's by the caller already where docker merges them
	Index  string            // merged EROFS index
	Layers []string          // EROFS layer files, bottom first
	OS     string            // "linux"
}

// CreateOptions is what `create` takes: docker's own request, and the image.
type CreateOptions struct {
	Name       string // empty: one is made up
	Config     *container.Config
	HostConfig *container.HostConfig
	Networking *network.NetworkingConfig
	Image      Image
	Trace      TraceFunc
}

// TraceFunc is told of each step as it ends: its name, what it was about, and how long it took.
type TraceFunc func(step, detail string, took time.Duration)

// StartOptions says what the caller wants of a start beside the start itself.
type StartOptions struct {
	Attach *AttachOptions // nil: start and return
	Trace  TraceFunc
}

// AttachOptions connects the caller's streams to the container's.
type AttachOptions struct {
	Stdin          io.Reader // nil: not attached
	Stdout, Stderr io.Writer // nil: not attached
	TTY            bool      // the container has a terminal: output is one raw stream
	Rows, Cols     uint16    // the terminal's size at the start, 0 when unknown
	DetachKeys     []byte    // empty: no detaching
}

// ListOptions selects containers as `ps` does.
type ListOptions struct {
	All     bool                // also those that do not run
	Last    int                 // the n newest, in any state; 0: no limit
	Size    bool                // fill SizeRw and SizeRootFs
	Filters map[string][]string // docker's keys: id name label exited status ancestor before since volume network publish expose health
}

// LogsOptions selects log lines as `logs` does.
type LogsOptions struct {
	Follow     bool
	Tail       int // -1: all
	Since      time.Time
	Until      time.Time
	Timestamps bool
	Details    bool
}

// StopOptions are those of `stop`. Zero values mean the container's own settings.
type StopOptions struct {
	Signal  string
	Timeout *int // seconds; -1: wait for ever
}

// RemoveOptions are those of `rm`.
type RemoveOptions struct {
	Force   bool // kill it first; a missing container is then no error
	Volumes bool // remove its anonymous volumes too
}
