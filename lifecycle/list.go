package lifecycle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
)

// full is a container as it stands on disk.
type full struct {
	id    string
	dir   Dir
	rec   *Record
	state *State
}

// load reads one container. One that is being made or removed at this moment is errdefs.ErrNotFound.
func (e *Engine) load(id string) (*full, error) {
	d := e.dir(id)
	rec, err := d.ReadRecord()
	if err != nil {
		return nil, err
	}
	st, err := e.state(id)
	if err != nil {
		return nil, err
	}
	return &full{id: id, dir: d, rec: rec, state: st}, nil
}

// all reads every container, the newest first. What cannot be read is left out.
func (e *Engine) all() ([]*full, error) {
	ids, err := e.ids()
	if err != nil {
		return nil, err
	}
	var list []*full
	for _, id := range ids {
		if c, err := e.load(id); err == nil {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b *full) int { return cmp.Or(b.rec.Created.Compare(a.rec.Created), cmp.Compare(a.id, b.id)) })
	return list, nil
}

// List selects containers as `ps` does, the newest first.
func (e *Engine) List(ctx context.Context, o ListOptions) ([]container.Summary, error) {
	list, err := e.all()
	if err != nil {
		return nil, err
	}
	match, err := newFilter(list, o.Filters)
	if err != nil {
		return nil, err
	}
	out := []container.Summary{}
	for _, c := range list {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !match.statusAsked && !o.All && o.Last <= 0 && c.state.Status != container.StateRunning {
			continue
		}
		if !match.ok(c) {
			continue
		}
		s := c.summary()
		if o.Size {
			s.SizeRw = treeSize(c.dir.Upper())
			s.SizeRootFs = s.SizeRw + c.imageSize()
		}
		out = append(out, s)
		if o.Last > 0 && len(out) == o.Last {
			break
		}
	}
	return out, nil
}

// ImageInUse names a container made from the image, if there is one.
func (e *Engine) ImageInUse(imageID string) (containerID string, running, ok bool) {
	list, _ := e.all()
	for _, c := range list {
		if c.rec.Image.ID == imageID {
			if containerID == "" || c.state.Status == container.StateRunning {
				containerID, running, ok = c.id, c.state.Status == container.StateRunning, true
			}
		}
	}
	return containerID, running, ok
}

func (c *full) summary() container.Summary {
	s := container.Summary{
		ID: c.id, Names: []string{"/" + c.rec.Name}, Image: c.rec.Image.Name, ImageID: c.rec.Image.ID,
		Command: shownCommand(c.rec.commandLine()), Created: c.rec.Created.Unix(),
		Ports: c.ports(), Labels: c.rec.Config.Labels, State: c.state.Status, Status: c.status(),
		Mounts:          c.rec.Mounts,
		NetworkSettings: &container.NetworkSettingsSummary{Networks: c.networks()},
	}
	if s.Labels == nil {
		s.Labels = map[string]string{}
	}
	if s.Mounts == nil {
		s.Mounts = []container.MountPoint{}
	}
	s.HostConfig.NetworkMode = string(c.rec.HostConfig.NetworkMode)
	s.HostConfig.Annotations = c.rec.HostConfig.Annotations
	return s
}

// shownCommand is a command line as docker shows it: arguments with blanks in quotes.
func shownCommand(line []string) string {
	shown := slices.Clone(line)
	for i, arg := range shown {
		if i > 0 && strings.Contains(arg, " ") {
			shown[i] = "'" + arg + "'"
		}
	}
	return strings.Join(shown, " ")
}

// status is docker's text for a state.
func (c *full) status() string {
	switch s := c.state; s.Status {
	case container.StateRunning:
		return "Up " + units.HumanDuration(time.Since(s.StartedAt))
	case container.StateExited:
		return fmt.Sprintf("Exited (%d) %s ago", s.ExitCode, units.HumanDuration(time.Since(s.FinishedAt)))
	case container.StateDead:
		return "Dead"
	default:
		return "Created"
	}
}

// ports are the bound ports of a running container, and what is only exposed.
func (c *full) ports() []container.PortSummary {
	out := []container.PortSummary{}
	if c.state.Status != container.StateRunning {
		return out
	}
	bound := map[network.Port]bool{}
	for p, bs := range c.state.Ports {
		for _, b := range bs {
			host, _ := strconv.ParseUint(b.HostPort, 10, 16)
			out = append(out, container.PortSummary{IP: b.HostIP, PrivatePort: p.Num(), PublicPort: uint16(host), Type: string(p.Proto())})
			bound[p] = true
		}
	}
	for p := range c.rec.Config.ExposedPorts {
		if !bound[p] {
			out = append(out, container.PortSummary{PrivatePort: p.Num(), Type: string(p.Proto())})
		}
	}
	slices.SortFunc(out, func(a, b container.PortSummary) int {
		return cmp.Or(cmp.Compare(a.PrivatePort, b.PrivatePort), a.IP.Compare(b.IP), cmp.Compare(a.PublicPort, b.PublicPort), cmp.Compare(a.Type, b.Type))
	})
	return out
}

func (c *full) networks() map[string]*network.EndpointSettings {
	name := string(c.rec.HostConfig.NetworkMode)
	ep := c.state.Network
	if ep == nil || c.state.Status != container.StateRunning {
		ep = &network.EndpointSettings{}
	}
	return map[string]*network.EndpointSettings{name: ep}
}

// imageSize is what the layers of the image take on disk.
func (c *full) imageSize() (n int64) {
	for _, l := range c.rec.Image.Layers {
		if fi, err := os.Stat(l); err == nil {
			n += fi.Size()
		}
	}
	return n
}

// treeSize adds the sizes of the files below dir. What may not be looked at counts as nothing.
func treeSize(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if fi, err := d.Info(); err == nil && fi.Mode().IsRegular() {
			n += fi.Size()
		}
		return nil
	})
	return n
}

// filter is ps's --filter: the values of one key are alternatives, different keys (and labels) must all hold.
type filter struct {
	byKey         map[string][]string
	names         []*regexp.Regexp
	before, since time.Time
	statusAsked   bool
}

var filterKeys = []string{"id", "name", "label", "exited", "status", "ancestor", "before", "since", "volume", "network", "publish", "expose", "health", "is-task", "isolation"}

func newFilter(list []*full, byKey map[string][]string) (*filter, error) {
	f := &filter{byKey: byKey}
	bad := func(k, v string) error {
		return failure(errdefs.ErrInvalidArgument, "invalid filter '%s=%s'", k, v)
	}
	for k, vs := range byKey {
		if !slices.Contains(filterKeys, k) {
			return nil, failure(errdefs.ErrInvalidArgument, "invalid filter '%s'", k)
		}
		for _, v := range vs {
			switch k {
			case "name":
				re, err := regexp.Compile(v)
				if err != nil {
					return nil, bad(k, v)
				}
				f.names = append(f.names, re)
			case "status":
				f.statusAsked = true
				if container.ValidateContainerState(container.ContainerState(v)) != nil {
					return nil, bad(k, v)
				}
			case "exited":
				f.statusAsked = true
				if _, err := strconv.Atoi(v); err != nil {
					return nil, bad(k, v)
				}
			case "before", "since":
				i := slices.IndexFunc(list, func(c *full) bool { return c.rec.Name == strings.TrimPrefix(v, "/") || strings.HasPrefix(c.id, v) })
				if i < 0 {
					return nil, failure(errdefs.ErrNotFound, "No such container: %s", v)
				}
				if k == "before" {
					f.before = list[i].rec.Created
				} else {
					f.since = list[i].rec.Created
				}
			case "health":
				if !slices.Contains([]string{"starting", "healthy", "unhealthy", "none"}, v) {
					return nil, bad(k, v)
				}
			case "publish", "expose":
				if _, err := network.ParsePortRange(v); err != nil {
					return nil, bad(k, v)
				}
			case "is-task":
				if _, err := strconv.ParseBool(v); err != nil {
					return nil, bad(k, v)
				}
			}
		}
	}
	return f, nil
}

func (f *filter) ok(c *full) bool {
	if !f.before.IsZero() && !c.rec.Created.Before(f.before) || !f.since.IsZero() && !c.rec.Created.After(f.since) {
		return false
	}
	for k, vs := range f.byKey {
		if len(vs) == 0 || k == "before" || k == "since" {
			continue
		}
		holds := func(v string) bool { return f.holds(c, k, v) }
		if k == "label" {
			if slices.ContainsFunc(vs, func(v string) bool { return !holds(v) }) {
				return false
			}
			continue
		}
		if !slices.ContainsFunc(vs, holds) {
			return false
		}
	}
	return true
}

func (f *filter) holds(c *full, key, v string) bool {
	switch key {
	case "id":
		return strings.HasPrefix(c.id, v)
	case "name":
		return slices.ContainsFunc(f.names, func(re *regexp.Regexp) bool {
			return re.MatchString(c.rec.Name) || re.MatchString("/"+c.rec.Name)
		})
	case "label":
		name, want, withValue := strings.Cut(v, "=")
		have, ok := c.rec.Config.Labels[name]
		return ok && (!withValue || have == want)
	case "exited":
		code, _ := strconv.Atoi(v)
		return c.state.Status == container.StateExited && c.state.ExitCode == code
	case "status":
		return string(c.state.Status) == v
	case "ancestor":
		name := c.rec.Image.Name
		return name == v || name == v+":latest" || name+":latest" == v || strings.HasPrefix(strings.TrimPrefix(c.rec.Image.ID, "sha256:"), strings.TrimPrefix(v, "sha256:")) && len(v) >= 4
	case "volume":
		return slices.ContainsFunc(c.rec.Mounts, func(m container.MountPoint) bool {
			return m.Destination == v || m.Source == v || m.Type == mount.TypeVolume && m.Name == v
		})
	case "network":
		_, ok := c.networks()[v]
		return ok
	case "publish", "expose":
		r, _ := network.ParsePortRange(v)
		in := func(p network.Port, num uint16) bool {
			return p.Proto() == r.Proto() && r.Start() <= num && num <= r.End()
		}
		if key == "expose" {
			for p := range c.rec.Config.ExposedPorts {
				if in(p, p.Num()) {
					return true
				}
			}
			return false
		}
		for p := range c.rec.HostConfig.PortBindings {
			if in(p, p.Num()) {
				return true
			}
		}
		return false
	case "health":
		return v == "none" // health checks are not run
	case "is-task":
		task, _ := strconv.ParseBool(v)
		return !task
	case "isolation":
		return v == "default"
	}
	return false
}

func isMissing(err error) bool { return errors.Is(err, errdefs.ErrNotFound) }
