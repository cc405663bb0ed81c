package lifecycle

import (
	"errors"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
)

// The states, and who moves a container between them:
//
//	created  made by Create; a start that fails leaves it there, with its error and exit code
//	running  set by the monitor when the container's process has been executed
//	exited   set by the monitor when it has ended
//
// A monitor that was killed wrote no end. Its container died with it (the init's parent-death signal), so a "running"
// record whose monitor is not alive is believed to be exited, with code 137.

// killedCode is what docker reports for a process that SIGKILL ended.
const killedCode = 128 + 9

// state is the believed state of a container.
func (e *Engine) state(id string) (*State, error) {
	s, err := e.dir(id).ReadState()
	if err != nil {
		if errors.Is(err, errdefs.ErrNotFound) {
			return nil, err
		}
		// A damaged record says nothing; the folder still can be inspected and removed.
		return &State{Status: container.StateDead, Error: err.Error()}, nil
	}
	return s.believed(), nil
}

func (s *State) believed() *State {
	if s.Status != container.StateRunning || s.Monitor.elsewhere() || s.Monitor.alive() {
		return s
	}
	dead := *s
	dead.Status, dead.Pid, dead.ExitCode = container.StateExited, 0, killedCode
	dead.Error = "the container's monitor was killed, and the container with it"
	if dead.FinishedAt.Before(dead.StartedAt) {
		dead.FinishedAt = dead.StartedAt
	}
	dead.Network, dead.Ports = nil, nil
	return &dead
}

// running says whether the container's process runs on this host.
func (e *Engine) running(id string) bool {
	s, err := e.state(id)
	return err == nil && s.Status == container.StateRunning && s.Monitor.here()
}

// rfc3339 is how docker writes times in inspect; the zero time is year 1.
func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
