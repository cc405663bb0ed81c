package lifecycle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/volume"
)

// anonymousLabel marks a volume that was made for one container and goes with it.
const anonymousLabel = "com.docker.volume.anonymous"

func (e *Engine) volumeDir(name string) string  { return filepath.Join(e.volumes(), name) }
func (e *Engine) volumeData(name string) string { return filepath.Join(e.volumes(), name, "_data") }

// makeVolume makes the volume name unless it is there. made says which.
func (e *Engine) makeVolume(name string, labels map[string]string) (made bool, err error) {
	if !nameRule.MatchString(name) {
		return false, failure(errdefs.ErrInvalidArgument, "create %s: %q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path", name, name)
	}
	if _, err := os.Stat(filepath.Join(e.volumeDir(name), "volume.json")); err == nil {
		return false, nil
	}
	if err := os.MkdirAll(e.volumes(), 0o700); err != nil {
		return false, err
	}
	tmp, err := os.MkdirTemp(e.volumes(), ".new-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(tmp)
	if err := os.Mkdir(filepath.Join(tmp, "_data"), 0o755); err != nil {
		return false, err
	}
	v := volume.Volume{Name: name, Driver: "local", Scope: "local", Mountpoint: e.volumeData(name), Labels: labels,
		Options: map[string]string{}, CreatedAt: time.Now().UTC().Format(time.RFC3339)}
	if err := writeJSON(filepath.Join(tmp, "volume.json"), v); err != nil {
		return false, err
	}
	if err := os.Rename(tmp, e.volumeDir(name)); err != nil {
		if _, serr := os.Stat(e.volumeData(name)); serr == nil {
			return false, nil // another command made it first
		}
		return false, err
	}
	return true, nil
}

// removeVolume removes a volume and what is in it.
func (e *Engine) removeVolume(name string) error {
	return e.bury(e.volumeDir(name), filepath.Join(e.volumes(), ".removing-"+name))
}

// anonymousVolumes are those of r that nobody named.
func (e *Engine) anonymousVolumes(r *Record) []string {
	var names []string
	for _, m := range r.Mounts {
		if m.Type != mount.TypeVolume {
			continue
		}
		var v volume.Volume
		if err := readJSON(filepath.Join(e.volumeDir(m.Name), "volume.json"), &v); err != nil {
			continue
		}
		if _, ok := v.Labels[anonymousLabel]; ok {
			names = append(names, m.Name)
		}
	}
	return names
}

// resolveMounts fills r.Mounts from docker's three ways to ask for a mount (-v, --mount, VOLUME), and makes the
// volumes that are missing; it returns the names of those. A later way does not override an earlier one for the same
// destination, as in docker: binds and mounts come before the image's VOLUMEs.
func (e *Engine) resolveMounts(r *Record) (made []string, err error) {
	defer func() {
		if err != nil {
			for _, v := range made {
				_ = e.removeVolume(v)
			}
		}
	}()
	taken := map[string]bool{}
	for dst := range r.HostConfig.Tmpfs {
		taken[path.Clean(dst)] = true
	}
	add := func(m container.MountPoint) error {
		m.Destination = path.Clean(m.Destination)
		if taken[m.Destination] {
			return failure(errdefs.ErrInvalidArgument, "Duplicate mount point: %s", m.Destination)
		}
		taken[m.Destination] = true
		r.Mounts = append(r.Mounts, m)
		return nil
	}
	addVolume := func(name string, m container.MountPoint) error {
		labels := map[string]string(nil)
		if name == "" {
			name, labels = newID(), map[string]string{anonymousLabel: ""}
		}
		fresh, err := e.makeVolume(name, labels)
		if err != nil {
			return err
		}
		if fresh {
			made = append(made, name)
		}
		m.Type, m.Name, m.Source, m.Driver = mount.TypeVolume, name, e.volumeData(name), "local"
		return add(m)
	}

	for _, b := range r.HostConfig.Binds {
		src, rest, ok := strings.Cut(b, ":")
		if !ok {
			return made, failure(errdefs.ErrInvalidArgument, "invalid volume specification: '%s'", b)
		}
		dst, mode, _ := strings.Cut(rest, ":")
		opts := strings.Split(mode, ",")
		m := container.MountPoint{Destination: dst, Mode: mode, RW: !slices.Contains(opts, "ro")}
		if !strings.HasPrefix(src, "/") {
			if err := addVolume(src, m); err != nil {
				return made, err
			}
			continue
		}
		m.Type, m.Source, m.Propagation = mount.TypeBind, path.Clean(src), mount.PropagationRPrivate
		for _, o := range opts {
			if slices.Contains(mount.Propagations, mount.Propagation(o)) {
				m.Propagation = mount.Propagation(o)
			}
		}
		// -v makes a source that is missing; --mount refuses it. The two differ in docker, and scripts rely on both.
		if _, err := os.Stat(m.Source); errors.Is(err, fs.ErrNotExist) {
			if err := os.MkdirAll(m.Source, 0o755); err != nil {
				return made, fmt.Errorf("error while creating mount source path '%s': %w", m.Source, err)
			}
		}
		if err := add(m); err != nil {
			return made, err
		}
	}
	for _, mt := range r.HostConfig.Mounts {
		switch mt.Type {
		case mount.TypeVolume:
			m := container.MountPoint{Destination: mt.Target, Mode: "z", RW: !mt.ReadOnly}
			if o := mt.VolumeOptions; o != nil && (o.Subpath != "" || o.DriverConfig != nil && len(o.DriverConfig.Options) > 0) {
				return made, failure(errdefs.ErrInvalidArgument, "--mount type=volume with volume-subpath or volume-opt is not supported by moss yet")
			}
			if err := addVolume(mt.Source, m); err != nil {
				return made, err
			}
		case mount.TypeBind:
			m := container.MountPoint{Type: mount.TypeBind, Source: path.Clean(mt.Source), Destination: mt.Target,
				RW: !mt.ReadOnly, Propagation: mount.PropagationRPrivate}
			create := false
			if mt.BindOptions != nil {
				create = mt.BindOptions.CreateMountpoint
				if mt.BindOptions.Propagation != "" {
					m.Propagation = mt.BindOptions.Propagation
				}
			}
			if _, err := os.Stat(m.Source); err != nil {
				if !errors.Is(err, fs.ErrNotExist) || !create {
					return made, failure(errdefs.ErrInvalidArgument, "invalid mount config for type \"bind\": bind source path does not exist: %s", mt.Source)
				}
				if err := os.MkdirAll(m.Source, 0o755); err != nil {
					return made, fmt.Errorf("error while creating mount source path '%s': %w", m.Source, err)
				}
			}
			if err := add(m); err != nil {
				return made, err
			}
		case mount.TypeTmpfs:
			if err := add(container.MountPoint{Type: mount.TypeTmpfs, Destination: mt.Target, RW: !mt.ReadOnly}); err != nil {
				return made, err
			}
		default:
			return made, failure(errdefs.ErrInvalidArgument, "--mount type=%s is not supported by moss yet", mt.Type)
		}
	}
	for _, dst := range sortedKeys(r.Config.Volumes) {
		if taken[path.Clean(dst)] {
			continue
		}
		if !path.IsAbs(dst) {
			return made, failure(errdefs.ErrInvalidArgument, "invalid volume destination %q: it is not absolute", dst)
		}
		if err := addVolume("", container.MountPoint{Destination: dst, RW: true}); err != nil {
			return made, err
		}
	}
	return made, nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
