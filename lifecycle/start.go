package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/moss-run/moss/userns"
)

// MonitorRole is the argv[0] under which the moss binary is a container's monitor.
const MonitorRole = "moss-monitor"

// Descriptors that a monitor is started with.
const (
	monitorConnFd = 3 // the starter's connection
	monitorLockFd = 4 // the container's lock, held
)

// monitorConfig is what the starter tells the monitor; the record tells the rest.
type monitorConfig struct {
	Root, ID string
	RunDir   string
	IDs      userns.Mapping
	Programs Programs
	IDMapped map[string]int // descriptors of detached mounts, by destination
	Trace    bool
}

// Programs are what is executed for a container.
type Programs struct {
	Monitor Program // MonitorMain's and RemoveMain's, by argv[0]
	Init    Program // package userns/runinit's
	Net     Program // package netns/netproc's
}

// Program is something to execute: its path, and the arguments before all others, argv[0] first.
type Program struct {
	Path string
	Args []string
}

// Start starts a created or ended container and returns when its process runs. With Attach the session relays its
// streams; Session.Wait must then be called. A container that runs already is errdefs.ErrConflict wrapped with its id;
// one that cannot start is a *StartError.
func (e *Engine) Start(ctx context.Context, nameOrID string, o StartOptions) (*Session, error) {
	id, err := e.find(nameOrID)
	if err != nil {
		return nil, err
	}
	dir := e.dir(id)
	if st, err := dir.ReadState(); err == nil && st.Monitor.elsewhere() && st.Status == container.StateRunning {
		return nil, failure(errdefs.ErrConflict, "container %s runs on host %s; stop it there", nameOrID, st.Monitor.Host)
	}
	lock, ok, err := lockDir(dir)
	if err == nil && !ok && !e.running(id) {
		lock, ok, err = e.lockSoon(ctx, id)
	}
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, failure(errdefs.ErrConflict, "container %s is already running", nameOrID)
	}
	defer lock.Close() // the monitor has its own descriptor of the same open file

	began := time.Now()
	ids, err := userns.Detect()
	if err != nil {
		return nil, err
	}
	if o.Trace != nil {
		o.Trace("ids", ids.String(), time.Since(began))
	}
	run, err := containerRunDir(id)
	if err != nil {
		return nil, err
	}
	programs, err := e.programs()
	if err != nil {
		return nil, err
	}
	rec, err := dir.ReadRecord()
	if err != nil {
		return nil, err
	}
	binds, err := idMapped(rec, ids, programs.Init)
	defer func() {
		for _, f := range binds {
			f.Close()
		}
	}()
	if err != nil {
		return nil, err
	}
	conn, err := spawnMonitor(dir, lock, binds, monitorConfig{Root: e.root, ID: id, RunDir: run, IDs: ids, Programs: programs, Trace: o.Trace != nil})
	if err != nil {
		return nil, err
	}
	s := &Session{ID: id, conn: conn, opt: o.Attach, detached: make(chan struct{})}
	hello := Hello{Trace: o.Trace != nil}
	if a := o.Attach; a != nil {
		hello.Wait = true
		hello.Stdin, hello.Stdout, hello.Stderr = a.Stdin != nil, a.Stdout != nil, a.Stderr != nil
		hello.Rows, hello.Cols = a.Rows, a.Cols
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	err = conn.sendJSON(frameHello, hello)
	if err == nil {
		err = s.awaitStart(o.Trace)
	}
	if err != nil {
		conn.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		var failed *StartError
		if !errors.As(err, &failed) {
			if last := tail(dir.MonitorLog()); last != "" {
				err = fmt.Errorf("%w\n%s", err, last)
			}
		}
		return nil, err
	}
	return s, nil
}

// spawnMonitor starts the monitor in a session and user namespace of its own. It outlives the caller.
func spawnMonitor(dir Dir, lock *os.File, binds map[string]*os.File, cfg monitorConfig) (*Conn, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "monitor"), os.NewFile(uintptr(pair[1]), "starter")
	defer ours.Close()
	defer theirs.Close()
	log, err := os.OpenFile(dir.MonitorLog(), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	files := []*os.File{theirs, lock}
	cfg.IDMapped = map[string]int{}
	for dst, f := range binds {
		cfg.IDMapped[dst] = 3 + len(files)
		files = append(files, f)
	}
	text, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{
		Path:        cfg.Programs.Monitor.Path,
		Args:        []string{MonitorRole, string(text)},
		Env:         os.Environ(),
		Dir:         "/",
		Stdout:      log,
		Stderr:      log,
		ExtraFiles:  files,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := userns.StartOuter(cmd, cfg.IDs); err != nil {
		return nil, err
	}
	c, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	return NewConn(c), nil
}

// tail is the end of a small log, for an error message.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b[max(0, len(b)-2048):]))
}
