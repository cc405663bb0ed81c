package lifecycle

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/moss-run/moss/fuseoverlay"
	"github.com/moss-run/moss/image/erofs"
	"github.com/moss-run/moss/netns"
	"github.com/moss-run/moss/userns"
)

// monitor is one container's companion: it is started by Engine.Start in an outer user namespace and a mount
// namespace of its own, and lives as long as the container's process.
type monitor struct {
	cfg     monitorConfig
	engine  *Engine
	dir     Dir
	rec     *Record
	hub     *hub
	starter *client
	state   State

	undoMu sync.Mutex // guards undo while the container starts
	undo   []func()   // what to take down again at the end, the last first
}

// MonitorMain is the main function of MonitorRole: args are the text of a monitorConfig. The result is the process's
// exit code; what went wrong is told to the starter, and kept in the record.
func MonitorMain(args []string) int {
	began := time.Now()
	if err := userns.AwaitOuter(); err != nil {
		// The starter's connection is there already, so that it can be told.
		conn, cerr := inheritedConn()
		if cerr == nil {
			_ = conn.sendJSON(frameFailed, Failure{Message: err.Error(), Code: 125})
		}
		return 1
	}
	m := &monitor{hub: newHub()}
	if err := json.Unmarshal([]byte(args[0]), &m.cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	m.engine = &Engine{root: m.cfg.Root, programs: func() (Programs, error) { return m.cfg.Programs, nil }}
	m.dir = m.engine.dir(m.cfg.ID)
	// Signals of the terminal and of a parting shell are not for the monitor: it ends when the container does. They are
	// caught and dropped, and not ignored: what is ignored stays ignored in every program executed from here.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGPIPE)
	conn, err := inheritedConn()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	unix.CloseOnExec(monitorLockFd)
	m.starter = &client{conn: conn}
	if err := m.greet(); err != nil {
		return 1 // the starter has gone: nobody wants the container
	}
	m.trace("monitor", "process "+strconv.Itoa(os.Getpid()), began)
	return m.run()
}

func inheritedConn() (*Conn, error) {
	unix.CloseOnExec(monitorConnFd)
	f := os.NewFile(monitorConnFd, "starter")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("the monitor is started by moss only: %w", err)
	}
	return NewConn(c), nil
}

// greet reads the starter's Hello.
func (m *monitor) greet() error {
	kind, b, err := m.starter.conn.receive()
	if err != nil {
		return err
	}
	if kind != frameHello {
		return errors.New("the first frame is not a Hello")
	}
	return json.Unmarshal(b, &m.starter.hello)
}

// trace tells the starter of a step that ends now.
func (m *monitor) trace(step, detail string, began time.Time) {
	m.traceTook(step, detail, time.Since(began))
}

func (m *monitor) traceTook(step, detail string, took time.Duration) {
	if m.cfg.Trace {
		_ = m.starter.conn.sendJSON(frameTrace, Step{Name: step, Detail: detail, Nanoseconds: int64(took)})
	}
}

func (m *monitor) defer_(f func()) {
	m.undoMu.Lock()
	defer m.undoMu.Unlock()
	m.undo = append(m.undo, f)
}

func (m *monitor) takeDown() {
	for i := len(m.undo) - 1; i >= 0; i-- {
		m.undo[i]()
	}
	m.undo = nil
}

// run takes the container from its record to its end.
func (m *monitor) run() int {
	m.hub.join(m.starter)
	started := make(chan struct{})
	go func() { // serves the starter from now on: its signals and its input count from the first moment
		m.hub.serve(m.starter)
		<-started
	}()
	proc, io, err := m.start()
	if err != nil {
		code := startCode(err)
		m.takeDown()
		if m.rec != nil {
			m.state.Status, m.state.ExitCode, m.state.Error = container.StateCreated, code, err.Error()
			m.state.Pid, m.state.Network, m.state.Ports = 0, nil, nil
			if werr := m.dir.WriteState(&m.state); werr != nil {
				err = fmt.Errorf("%w; and its record cannot be written: %w", err, werr)
			}
		}
		_ = m.starter.conn.sendJSON(frameFailed, Failure{Message: err.Error(), Code: code})
		return 1
	}
	_ = m.starter.conn.sendBytes(frameStarted, nil)
	io.run(m.hub, proc)
	close(started)

	began := time.Now()
	code, sig, werr := proc.Wait()
	m.trace("wait", "process "+strconv.Itoa(proc.Pid), began)
	began = time.Now()
	io.drain()
	if sig != 0 {
		code = 128 + int(sig)
	}
	m.state.Status, m.state.Pid, m.state.ExitCode, m.state.FinishedAt = container.StateExited, 0, code, time.Now()
	m.state.Network, m.state.Ports = nil, nil
	if werr != nil {
		m.state.Error = werr.Error()
	}
	if err := io.log.Close(); err != nil && m.state.Error == "" {
		m.state.Error = "the log is not complete: " + err.Error()
	}
	if err := m.dir.WriteState(&m.state); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	m.takeDown()
	if m.rec.HostConfig.AutoRemove {
		if err := m.engine.removeLocked(m.cfg.ID, true); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	m.trace("exit", "code "+strconv.Itoa(code), began)
	m.hub.finish(Exit{Code: code})
	return 0
}

// startCode is docker's exit code for a start that failed.
func startCode(err error) int {
	switch {
	case errors.Is(err, userns.ErrCommandNotFound):
		return 127
	case errors.Is(err, userns.ErrCommandNotExecutable):
		return 126
	}
	return 125
}

// start brings the container up. The steps that do not need each other's results run side by side: the network
// process starts while the root file system is mounted.
func (m *monitor) start() (*userns.Process, *streams, error) {
	var err error
	if m.rec, err = m.dir.ReadRecord(); err != nil {
		return nil, nil, err
	}
	if st, err := m.dir.ReadState(); err == nil {
		m.state = *st.believed()
	}
	firstStart := m.state.StartedAt.IsZero()
	if m.state.Monitor, err = Self(); err != nil {
		return nil, nil, err
	}
	m.state.Error, m.state.ExitCode, m.state.OOMKilled = "", 0, false
	clearRunDir(m.cfg.RunDir) // of a monitor that was killed
	if err := os.MkdirAll(m.cfg.RunDir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make the runtime folder: %w", err)
	}
	m.defer_(func() { clearRunDir(m.cfg.RunDir) })
	h := m.rec.HostConfig

	// The two slow starts overlap: the network process's and that of the root file system.
	var net_ *netns.Network
	var side errgroup.Group
	var init string
	side.Go(func() (err error) {
		var release func()
		if init, release, err = userns.Seal(m.cfg.Programs.Init.Path); err == nil {
			m.defer_(release)
		}
		return err
	})
	if needsNetwork(h) {
		side.Go(func() (err error) {
			net_, err = m.startNetwork()
			return err
		})
	}
	root, tree, err := m.mountRoot()
	if err = cmp.Or(side.Wait(), err); err != nil {
		return nil, nil, err
	}
	if firstStart {
		if err := m.fillVolumes(tree); err != nil {
			return nil, nil, err
		}
	}
	if err := m.placeIDMapped(); err != nil {
		return nil, nil, err
	}
	etc, err := m.writeEtc()
	if err != nil {
		return nil, nil, err
	}
	spec, err := buildSpec(m.rec, root, m.cfg.IDs, etc)
	if err != nil {
		return nil, nil, err
	}
	if h := m.starter.hello; h.Rows > 0 && spec.Process.Terminal {
		spec.Process.ConsoleSize = &specs.Box{Height: uint(h.Rows), Width: uint(h.Cols)}
	}
	io, err := m.openStreams()
	if err != nil {
		return nil, nil, err
	}
	listener, err := listenSocket(filepath.Join(m.cfg.RunDir, "monitor.sock"))
	if err != nil {
		return nil, nil, fmt.Errorf("listen for commands: %w", err)
	}
	m.defer_(func() { listener.Close() })
	go m.accept(listener)

	var attached sync.WaitGroup
	var attachErr error
	proc, err := userns.Start(context.Background(), userns.RunConfig{
		Spec: spec, HelperPath: init, HelperArgs: m.cfg.Programs.Init.Args,
		Stdin: io.childIn, Stdout: io.childOut, Stderr: io.childErr,
		Init:  h.Init != nil && *h.Init,
		Trace: m.traceTook,
		Created: func(pid int) {
			if net_ == nil {
				return
			}
			attached.Add(1)
			go func() {
				defer attached.Done()
				attachErr = m.attachNetwork(net_, pid)
			}()
		},
		Ready: func() error {
			attached.Wait()
			return attachErr
		},
	})
	if err != nil {
		io.abandon()
		return nil, nil, err
	}
	io.bind(m.hub, proc)
	m.state.Status, m.state.Pid, m.state.StartedAt = container.StateRunning, proc.Pid, time.Now()
	if err := m.dir.WriteState(&m.state); err != nil {
		_ = proc.Signal(syscall.SIGKILL)
		_, _, _ = proc.Wait()
		return nil, nil, err
	}
	return proc, io, nil
}

// accept serves the monitor's socket.
func (m *monitor) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			cl := &client{conn: NewConn(c)}
			defer cl.conn.Close()
			kind, b, err := cl.conn.receive()
			if err != nil || kind != frameHello || json.Unmarshal(b, &cl.hello) != nil {
				return
			}
			m.hub.join(cl)
			m.hub.serve(cl)
		}()
	}
}

// mountsDir is where in the runtime folder every monitor has its mounts: each sees its own, in its own mount namespace.
// They go with the process; taking them down one by one takes the kernel a millisecond each.
const mountsDir = "mounts"

// mountRoot mounts the image and the writable layer on it.
func (m *monitor) mountRoot() (string, *erofs.Image, error) {
	began := time.Now()
	tree, err := erofs.Open(m.rec.Image.Index, m.rec.Image.Layers)
	if err != nil {
		return "", nil, fmt.Errorf("image %s: %w; pull it again", m.rec.Image.Name, err)
	}
	root, err := fuseoverlay.MountRoot(fuseoverlay.RootConfig{
		Tree: tree, Upper: m.dir.Upper(), Work: m.dir.Work(), Mounts: filepath.Join(filepath.Dir(m.cfg.RunDir), mountsDir),
		UIDs: m.cfg.IDs.InnerUIDs, GIDs: m.cfg.IDs.InnerGIDs, Throwaway: m.rec.HostConfig.AutoRemove,
		Panicked: func(what any, stack []byte) { fmt.Fprintf(os.Stderr, "image server: %v\n%s", what, stack) },
	})
	if err != nil {
		tree.Close()
		return "", nil, err
	}
	if !m.rec.HostConfig.AutoRemove { // whose writable layer nobody will mount again
		m.defer_(func() {
			if err := root.Detach(); err != nil { // the tree stays open: the process ends soon
				fmt.Fprintln(os.Stderr, err)
			}
		})
	}
	m.trace("writable layer", root.Mode+", image "+m.rec.Image.Name, began)
	return root.Dir, tree, nil
}
