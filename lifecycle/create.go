package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"
)

// Create makes a container's folder, and its volumes. What is half-made when it fails is removed again. Errors wrap
// errdefs.ErrConflict (the name is taken) and ErrInvalidArgument.
func (e *Engine) Create(ctx context.Context, o CreateOptions) (container.CreateResponse, error) {
	began := time.Now()
	var resp container.CreateResponse
	if len(o.Config.Entrypoint)+len(o.Config.Cmd) == 0 {
		return resp, failure(errdefs.ErrInvalidArgument, "no command specified")
	}
	if o.HostConfig.NetworkMode.IsDefault() || o.HostConfig.NetworkMode == "" {
		o.HostConfig.NetworkMode = network.NetworkBridge
	}
	if err := checkSettings(o.HostConfig); err != nil {
		return resp, err
	}
	if err := os.MkdirAll(e.containers(), 0o700); err != nil {
		return resp, fmt.Errorf("make the store: %w; set MOSS_ROOT to a folder that you may write", err)
	}

	r := &Record{
		Version: recordVersion, ID: newID(), Name: o.Name, Created: time.Now().UTC(),
		Image: o.Image, Config: o.Config, HostConfig: o.HostConfig, Networking: o.Networking,
	}
	r.Image.Config = nil // merged into r.Config; a second copy could only disagree with it
	if r.Config.Hostname == "" {
		r.Config.Hostname = r.ID[:12]
		if r.HostConfig.NetworkMode.IsHost() {
			r.Config.Hostname = hostName()
		}
	}

	// The folder comes before the name, so that whoever finds the claim finds its container; it is made under a name
	// that no listing shows, and gets its own by rename when it is whole.
	tmp, err := os.MkdirTemp(e.containers(), ".new-")
	if err != nil {
		return resp, fmt.Errorf("make the container's folder: %w", err)
	}
	defer os.RemoveAll(tmp)
	dir := Dir(tmp)
	for _, d := range []string{dir.Upper(), dir.Work()} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return resp, err
		}
	}

	vols, err := e.resolveMounts(r)
	if err != nil {
		return resp, err
	}
	undo := func() {
		for _, v := range vols {
			_ = e.removeVolume(v)
		}
	}
	if err := os.Mkdir(string(e.dir(r.ID)), 0o700); err != nil { // holds the place for the claim
		undo()
		return resp, err
	}
	if o.Name != "" {
		err = e.claimName(o.Name, r.ID)
	} else {
		r.Name, err = e.inventName(r.ID)
	}
	if err == nil {
		if err = errors.Join(writeJSON(dir.config(), r), dir.WriteState(&State{Status: container.StateCreated})); err == nil {
			// rename(2) itself, for os.Rename does not let a folder take the place of an empty one.
			err = unix.Rename(tmp, string(e.dir(r.ID)))
		}
		if err != nil {
			_ = e.dropName(r.Name, r.ID)
		}
	}
	if err != nil {
		os.Remove(string(e.dir(r.ID)))
		undo()
		return resp, err
	}
	if o.Trace != nil {
		o.Trace("create", r.Name+" "+r.ID[:12], time.Since(began))
	}
	resp.ID = r.ID
	resp.Warnings = []string{}
	return resp, nil
}

// checkSettings refuses what moss cannot do yet: a setting that is not obeyed is worse than one refused.
func checkSettings(h *container.HostConfig) error {
	no := func(what string) error {
		return failure(errdefs.ErrInvalidArgument, "%s is not supported by moss yet", what)
	}
	switch {
	case h.NetworkMode.IsContainer(), h.NetworkMode.IsUserDefined():
		return no("network " + string(h.NetworkMode) + " (there are bridge, host and none)")
	case h.PidMode != "" && !h.PidMode.IsPrivate() && h.PidMode != "private":
		return no("pid mode " + string(h.PidMode))
	case h.IpcMode != "" && h.IpcMode != "private" && h.IpcMode != "shareable":
		return no("ipc mode " + string(h.IpcMode))
	case h.UTSMode != "":
		return no("uts mode " + string(h.UTSMode))
	case h.UsernsMode != "":
		return no("userns mode " + string(h.UsernsMode))
	case h.CgroupnsMode != "" && !h.CgroupnsMode.IsPrivate():
		return no("cgroupns mode " + string(h.CgroupnsMode))
	case h.RestartPolicy.Name != "" && !h.RestartPolicy.IsNone():
		return no("restart policy " + string(h.RestartPolicy.Name))
	case len(h.VolumesFrom) > 0:
		return no("volumes-from")
	case h.VolumeDriver != "" && h.VolumeDriver != "local":
		return no("volume driver " + h.VolumeDriver)
	}
	return nil
}
