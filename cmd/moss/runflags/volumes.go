package runflags

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/mount"
)

var volumeModes = []string{"ro", "rw", "z", "Z", "nocopy", "rprivate", "private", "rshared", "shared", "rslave", "slave", "consistent", "cached", "delegated"}

// parseVolume reads -v: a path alone is an anonymous volume, else source:target[:options].
func parseVolume(v string) (bind, anonymous string, err error) {
	parts := strings.Split(v, ":")
	bad := func(why string) (string, string, error) {
		return "", "", fmt.Errorf("invalid volume specification: '%s'%s", v, why)
	}
	switch len(parts) {
	case 1:
		if parts[0] == "" || !path.IsAbs(parts[0]) {
			return bad(": invalid mount config for type \"volume\": invalid mount path: '" + parts[0] + "' mount path must be absolute")
		}
		if path.Clean(parts[0]) == "/" {
			return bad(": invalid volume specification: destination can't be '/'")
		}
		return "", parts[0], nil
	case 2, 3:
	default:
		return bad("")
	}
	src, err := absolute(parts[0])
	if err != nil {
		return "", "", err
	}
	if src == "" || parts[1] == "" {
		return bad("")
	}
	if !path.IsAbs(parts[1]) {
		return bad(": invalid mount config for type \"volume\": invalid mount path: '" + parts[1] + "' mount path must be absolute")
	}
	if path.Clean(parts[1]) == "/" {
		return bad(": destination can't be '/'")
	}
	bind = src + ":" + parts[1]
	if len(parts) == 3 {
		for _, o := range strings.Split(parts[2], ",") {
			if !slices.Contains(volumeModes, o) {
				return "", "", fmt.Errorf("invalid mode: %s", parts[2])
			}
		}
		bind += ":" + parts[2]
	}
	return bind, "", nil
}

// parseMount reads --mount: comma-separated key=value pairs, quoted as CSV.
func parseMount(s string) (mount.Mount, error) {
	m := mount.Mount{Type: mount.TypeVolume}
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return m, err
	}
	bindOpts := func() *mount.BindOptions {
		if m.BindOptions == nil {
			m.BindOptions = &mount.BindOptions{}
		}
		return m.BindOptions
	}
	volOpts := func() *mount.VolumeOptions {
		if m.VolumeOptions == nil {
			m.VolumeOptions = &mount.VolumeOptions{}
		}
		return m.VolumeOptions
	}
	tmpfsOpts := func() *mount.TmpfsOptions {
		if m.TmpfsOptions == nil {
			m.TmpfsOptions = &mount.TmpfsOptions{}
		}
		return m.TmpfsOptions
	}
	for _, field := range fields {
		k, v, hasValue := strings.Cut(field, "=")
		k = strings.ToLower(strings.TrimSpace(k))
		boolean := func() (bool, error) {
			if !hasValue {
				return true, nil
			}
			b, err := strconv.ParseBool(v)
			if err != nil {
				return false, fmt.Errorf("invalid value for %s: %s", k, v)
			}
			return b, nil
		}
		if !hasValue && !slices.Contains([]string{"readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src"}, k) {
			return m, fmt.Errorf("invalid field '%s' must be a key=value pair", field)
		}
		switch k {
		case "type":
			m.Type = mount.Type(strings.ToLower(v))
		case "source", "src":
			if m.Source, err = absolute(v); err != nil {
				return m, err
			}
		case "target", "dst", "destination":
			m.Target = v
		case "readonly", "ro":
			m.ReadOnly, err = boolean()
		case "consistency":
			m.Consistency = mount.Consistency(v)
		case "bind-propagation":
			if !slices.Contains(mount.Propagations, mount.Propagation(v)) {
				return m, fmt.Errorf("invalid value for %s: %s", k, v)
			}
			bindOpts().Propagation = mount.Propagation(v)
		case "bind-nonrecursive":
			bindOpts().NonRecursive, err = boolean()
		case "bind-create-src":
			bindOpts().CreateMountpoint, err = boolean()
		case "bind-recursive":
			switch v {
			case "enabled":
			case "disabled":
				bindOpts().NonRecursive = true
			default:
				return m, fmt.Errorf("bind-recursive=%s is not supported by moss yet", v)
			}
		case "volume-nocopy":
			volOpts().NoCopy, err = boolean()
		case "volume-subpath":
			volOpts().Subpath = v
		case "volume-label":
			lk, lv, _ := strings.Cut(v, "=")
			if volOpts().Labels == nil {
				volOpts().Labels = map[string]string{}
			}
			volOpts().Labels[lk] = lv
		case "volume-driver":
			if v != "local" {
				return m, fmt.Errorf("volume-driver=%s is not supported by moss yet", v)
			}
		case "volume-opt":
			return m, errors.New("volume-opt is not supported by moss yet")
		case "tmpfs-size":
			if tmpfsOpts().SizeBytes, err = units.RAMInBytes(v); err != nil {
				return m, fmt.Errorf("invalid value for %s: %s", k, v)
			}
		case "tmpfs-mode":
			n, perr := strconv.ParseUint(v, 8, 32)
			if perr != nil {
				return m, fmt.Errorf("invalid value for %s: %s", k, v)
			}
			tmpfsOpts().Mode = os.FileMode(n)
		default:
			return m, fmt.Errorf("unexpected key '%s' in '%s'", k, field)
		}
		if err != nil {
			return m, err
		}
	}
	switch {
	case !slices.Contains([]mount.Type{mount.TypeBind, mount.TypeVolume, mount.TypeTmpfs}, m.Type):
		return m, fmt.Errorf("mount type %q is not supported by moss yet: there are bind, volume and tmpfs", m.Type)
	case m.Target == "":
		return m, errors.New("target is required")
	case !path.IsAbs(m.Target):
		return m, fmt.Errorf("invalid mount path: '%s' mount path must be absolute", m.Target)
	case path.Clean(m.Target) == "/":
		return m, errors.New("invalid mount target: destination can't be '/'")
	case m.Type == mount.TypeBind && m.Source == "":
		return m, errors.New("source is required for type bind")
	case m.Type == mount.TypeBind && !path.IsAbs(m.Source):
		return m, fmt.Errorf("invalid mount config for type \"bind\": invalid mount path: '%s' mount path must be absolute", m.Source)
	case m.Type == mount.TypeTmpfs && m.Source != "":
		return m, errors.New("source must not be specified for type tmpfs")
	case m.VolumeOptions != nil && m.Type != mount.TypeVolume, m.BindOptions != nil && m.Type != mount.TypeBind, m.TmpfsOptions != nil && m.Type != mount.TypeTmpfs:
		return m, fmt.Errorf("an option of another type of mount is given for type %s", m.Type)
	}
	return m, nil
}
