package lifecycle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// recordVersion is raised when a field of Record or State changes its meaning.
const recordVersion = 1

// Record is config.json: what a container is. It is written once, at create.
type Record struct {
	Version    int
	ID         string
	Name       string // without docker's leading slash
	Created    time.Time
	Image      Image
	Config     *container.Config
	HostConfig *container.HostConfig
	Networking *network.NetworkingConfig `json:",omitempty"`
	Mounts     []container.MountPoint    // volumes and binds, resolved
}

// State is state.json: what a container is doing. Only the holder of its lock writes it.
type State struct {
	Version    int
	Status     container.ContainerState
	Pid        int // the container's first process, as the host sees it
	ExitCode   int
	OOMKilled  bool
	Error      string
	StartedAt  time.Time
	FinishedAt time.Time
	Monitor    Process                   // who wrote this while it ran
	Network    *network.EndpointSettings `json:",omitempty"`
	Ports      network.PortMap           `json:",omitempty"` // as bound
}

// Path and Args are docker's view of the command line: entrypoint and cmd, joined.
func (r *Record) commandLine() []string {
	return append(append([]string{}, r.Config.Entrypoint...), r.Config.Cmd...)
}

// Dir is one container's folder.
type Dir string

func (d Dir) config() string { return filepath.Join(string(d), "config.json") }
func (d Dir) state() string  { return filepath.Join(string(d), "state.json") }
func (d Dir) lock() string   { return filepath.Join(string(d), "lock") }

// Upper is the writable layer, Work its companion for the kernel's overlay.
func (d Dir) Upper() string { return filepath.Join(string(d), "upper") }
func (d Dir) Work() string  { return filepath.Join(string(d), "work") }

// Log is the container's output in docker's json-file format.
func (d Dir) Log() string { return filepath.Join(string(d), filepath.Base(string(d))+"-json.log") }

// MonitorLog is where the monitor's own last words go.
func (d Dir) MonitorLog() string { return filepath.Join(string(d), "monitor.log") }

// Etc holds the files that are bound over the image's: hosts, hostname, resolv.conf.
func (d Dir) Etc(name string) string { return filepath.Join(string(d), name) }

// ReadRecord reads config.json.
func (d Dir) ReadRecord() (*Record, error) {
	r := new(Record)
	if err := readJSON(d.config(), r); err != nil {
		return nil, err
	}
	if r.Version != recordVersion || r.Config == nil || r.HostConfig == nil {
		return nil, fmt.Errorf("%s: not a record that this moss can read (version %d)", d.config(), r.Version)
	}
	return r, nil
}

// ReadState reads state.json as it stands; see Engine.state for the believed one.
func (d Dir) ReadState() (*State, error) {
	s := new(State)
	if err := readJSON(d.state(), s); err != nil {
		return nil, err
	}
	return s, nil
}

// WriteState replaces state.json. The caller holds the lock.
func (d Dir) WriteState(s *State) error {
	s.Version = recordVersion
	return writeJSON(d.state(), s)
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return failure(errdefs.ErrNotFound, "%w", err)
		}
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s is damaged: %w", path, err)
	}
	return nil
}

// writeJSON replaces path as a whole: a reader sees the old text or the new, never half of one.
func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if _, err := tmp.Write(b); err != nil {
		tmp.Close()
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := tmp.Close(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(tmp.Name(), path)
}
