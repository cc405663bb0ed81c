package lifecycle

import (
	"context"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"
)

// Inspect is everything that is known of a container, in docker's form.
func (e *Engine) Inspect(ctx context.Context, nameOrID string, size bool) (container.InspectResponse, error) {
	id, err := e.find(nameOrID)
	if err != nil {
		return container.InspectResponse{}, err
	}
	c, err := e.load(id)
	if err != nil {
		return container.InspectResponse{}, err
	}
	r := container.InspectResponse{
		ID: id, Created: rfc3339(c.rec.Created), Image: c.rec.Image.ID, Name: "/" + c.rec.Name,
		ResolvConfPath: c.dir.Etc("resolv.conf"), HostnamePath: c.dir.Etc("hostname"), HostsPath: c.dir.Etc("hosts"), LogPath: c.dir.Log(),
		Driver: "moss", Platform: c.rec.Image.OS, HostConfig: c.rec.HostConfig, Config: c.rec.Config, Mounts: c.rec.Mounts,
		GraphDriver: &storage.DriverData{Name: "moss", Data: map[string]string{
			"UpperDir": c.dir.Upper(), "WorkDir": c.dir.Work(), "Image": c.rec.Image.Index,
		}},
	}
	if r.Mounts == nil {
		r.Mounts = []container.MountPoint{}
	}
	if line := c.rec.commandLine(); len(line) > 0 {
		r.Path, r.Args = line[0], line[1:]
	}
	s := c.state
	r.State = &container.State{
		Status: s.Status, Running: s.Status == container.StateRunning, Dead: s.Status == container.StateDead, OOMKilled: s.OOMKilled,
		Pid: s.Pid, ExitCode: s.ExitCode, Error: s.Error, StartedAt: rfc3339(s.StartedAt), FinishedAt: rfc3339(s.FinishedAt),
	}
	if !r.State.Running {
		r.State.Pid = 0
	}
	r.NetworkSettings = &container.NetworkSettings{Networks: c.networks(), Ports: network.PortMap{}}
	if r.State.Running {
		r.NetworkSettings.SandboxID = id
		for p := range c.rec.Config.ExposedPorts {
			r.NetworkSettings.Ports[p] = nil
		}
		for p, b := range s.Ports {
			r.NetworkSettings.Ports[p] = b
		}
	}
	if size {
		rw := treeSize(c.dir.Upper())
		root := rw + c.imageSize()
		r.SizeRw, r.SizeRootFs = &rw, &root
	}
	return r, nil
}
