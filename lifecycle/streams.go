package lifecycle

import (
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/moss-run/moss/userns"
)

// streams are the container's standard streams, as the monitor holds them.
type streams struct {
	childIn, childOut, childErr *os.File // the process's ends, without a terminal
	in, out, err                *os.File // ours
	log                         *logFile
	pumps                       sync.WaitGroup
}

// openStreams makes the pipes, unless the container has a terminal, and opens the log.
func (m *monitor) openStreams() (*streams, error) {
	s := &streams{}
	var err error
	if s.log, err = openLog(m.dir.Log()); err != nil {
		return nil, err
	}
	if m.rec.Config.Tty {
		return s, nil
	}
	if m.rec.Config.OpenStdin {
		if s.childIn, s.in, err = os.Pipe(); err != nil {
			return nil, err
		}
	}
	if s.out, s.childOut, err = os.Pipe(); err != nil {
		return nil, err
	}
	if s.err, s.childErr, err = os.Pipe(); err != nil {
		return nil, err
	}
	return s, nil
}

// bind lets callers reach the process, once it runs.
func (s *streams) bind(h *hub, p *userns.Process) {
	closeAll(s.childIn, s.childOut, s.childErr)
	h.mu.Lock()
	h.signal, h.resize = func(sig syscall.Signal) error { return signalFirst(p, sig) }, p.Resize
	h.console = p.Console
	if p.Console != nil {
		h.stdin = p.Console
	} else if s.in != nil {
		h.stdin = s.in
	}
	h.mu.Unlock()
}

// run begins to move bytes. The starter has been told that the container runs: what came to it before would be lost.
func (s *streams) run(h *hub, p *userns.Process) {
	if p.Console != nil {
		s.pump(p.Console, h, frameStdout, "stdout")
		return
	}
	s.pump(s.out, h, frameStdout, "stdout")
	s.pump(s.err, h, frameStderr, "stderr")
}

// signalFirst sends a signal to the container's first process. The kernel lets no signal end a pid 1 that does not handle
// it; of SIGPIPE, which says that nobody will ever read the output, that would leave a container that writes for ever.
func signalFirst(p *userns.Process, sig syscall.Signal) error {
	if sig == syscall.SIGPIPE && defaultAction(p.Pid, sig) {
		sig = syscall.SIGKILL
	}
	return p.Signal(sig)
}

// defaultAction says whether a process neither handles nor ignores a signal (SigIgn, SigCgt in proc_pid_status(5)).
func defaultAction(pid int, sig syscall.Signal) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	var own uint64
	for _, line := range strings.Split(string(b), "\n") {
		if name, hex, ok := strings.Cut(line, ":"); ok && (name == "SigIgn" || name == "SigCgt") {
			set, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			if err != nil {
				return false
			}
			own |= set
		}
	}
	return own&(1<<(sig-1)) == 0
}

func (s *streams) pump(from *os.File, h *hub, kind frameKind, name string) {
	lines := &logStream{log: s.log, stream: name}
	s.pumps.Add(1)
	go func() {
		defer s.pumps.Done()
		// A terminal's master side ends with EIO when the last process has gone.
		_, _ = io.CopyBuffer(io.MultiWriter(lines, hubStream{h, kind}), onlyReader{from}, make([]byte, 32<<10))
		lines.flush()
		from.Close()
	}()
}

// drain waits for the last output. Nobody can hold the streams open any more: with the container's pid 1 every
// process of its pid namespace has been killed.
func (s *streams) drain() { s.pumps.Wait() }

// abandon closes everything when the container did not start.
func (s *streams) abandon() {
	closeAll(s.childIn, s.childOut, s.childErr, s.in, s.out, s.err)
	_ = s.log.Close()
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}
