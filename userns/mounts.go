package userns

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// insideOnly are the file systems that belong to a namespace of the container, and so can be mounted only from inside.
var insideOnly = map[string]bool{"proc": true, "sysfs": true, "mqueue": true, "cgroup": true, "cgroup2": true}

// innerMounts are what is left for the init: mounts, and for each an open detached mount to move there, or -1.
type innerMounts struct {
	mounts []specs.Mount
	fds    []int
}

func (in *innerMounts) close() {
	for _, fd := range in.fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// makeMounts makes the spec's mounts below root in the caller's mount namespace: the container's, which is copied from
// it, has them locked. What only the init can mount, and what lies below such a mount, is returned.
func makeMounts(spec *specs.Spec, root int) (*innerMounts, error) {
	in := &innerMounts{}
	owner := ownerOf(spec)
	for _, m := range spec.Mounts {
		below := false
		for _, i := range in.mounts {
			below = below || i.Destination == m.Destination || strings.HasPrefix(m.Destination, i.Destination+"/")
		}
		if insideOnly[m.Type] {
			// The place is made here already, where there is power over every folder of the image.
			if !below {
				fd, err := mountPoint(root, m.Destination, true, owner.uid, owner.gid)
				if err != nil {
					in.close()
					return nil, fmt.Errorf("mount %s: %w", m.Destination, err)
				}
				unix.Close(fd)
			}
			in.mounts, in.fds = append(in.mounts, m), append(in.fds, -1)
			continue
		}
		tree, folder, err := detached(m, spec, owner)
		if err == nil && below {
			in.mounts, in.fds = append(in.mounts, m), append(in.fds, tree)
			continue
		}
		if err == nil {
			err = place(root, m.Destination, tree, folder, owner)
			unix.Close(tree)
		}
		if err == nil && m.Destination == "/dev" && m.Type == "tmpfs" {
			err = fillDev(root, spec, owner)
		}
		if err != nil {
			in.close()
			return nil, fmt.Errorf("mount %s: %w", m.Destination, err)
		}
	}
	return in, nil
}

// place attaches a detached mount at dst below root.
func place(root int, dst string, tree int, folder bool, owner owner) error {
	at, err := mountPoint(root, dst, folder, owner.uid, owner.gid)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return err
	}
	if there := st.Mode&unix.S_IFMT == unix.S_IFDIR; there != folder {
		return errors.New("a folder cannot be mounted on a file, nor a file on a folder")
	}
	if err := unix.MoveMount(tree, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	return nil
}

// owner is the container's root, as the caller's user namespace knows it.
type owner struct{ uid, gid int }

func ownerOf(spec *specs.Spec) (o owner) {
	if u, ok := hostID(spec.Linux.UIDMappings, 0); ok {
		o.uid = int(u)
	}
	if g, ok := hostID(spec.Linux.GIDMappings, 0); ok {
		o.gid = int(g)
	}
	return o
}

func hostID(maps []specs.LinuxIDMapping, id uint32) (uint32, bool) {
	for _, m := range maps {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return m.HostID + id - m.ContainerID, true
		}
	}
	return 0, false
}

// detached makes a mount that is attached nowhere yet.
func detached(m specs.Mount, spec *specs.Spec, owner owner) (fd int, folder bool, err error) {
	o := parseOptions(m.Options)
	if m.Type == "bind" || o.bind {
		return detachedBind(m.Source, o)
	}
	data, err := ownedData(m.Type, o.data, spec, owner)
	if err != nil {
		return -1, false, err
	}
	fs, err := unix.Fsopen(m.Type, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, false, fmt.Errorf("file system %s: %w", m.Type, err)
	}
	defer unix.Close(fs)
	if m.Source != "" {
		_ = unix.FsconfigSetString(fs, "source", m.Source)
	}
	for _, d := range data {
		k, v, hasValue := strings.Cut(d, "=")
		if hasValue {
			err = unix.FsconfigSetString(fs, k, v)
		} else {
			err = unix.FsconfigSetFlag(fs, k)
		}
		if err != nil {
			return -1, false, fmt.Errorf("option %s of %s: %w", d, m.Type, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, false, fmt.Errorf("make a %s: %w", m.Type, err)
	}
	fd, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(o.set))
	if err != nil {
		return -1, false, fmt.Errorf("make a %s: %w", m.Type, err)
	}
	return fd, true, nil
}

// ownedData moves the owners in a file system's options to the ids of the caller's namespace.
func ownedData(fsType string, data []string, spec *specs.Spec, owner owner) ([]string, error) {
	out := data[:0:0]
	have := map[string]bool{}
	for _, d := range data {
		k, v, _ := strings.Cut(d, "=")
		if k == "uid" || k == "gid" {
			maps := spec.Linux.UIDMappings
			if k == "gid" {
				maps = spec.Linux.GIDMappings
			}
			n, err := strconv.ParseUint(v, 10, 32)
			if err != nil {
				return nil, fmt.Errorf("option %s: %w", d, err)
			}
			id, ok := hostID(maps, uint32(n))
			if !ok && fsType == "devpts" {
				continue // there is no such group here; the terminals belong to whoever opens them
			}
			if !ok {
				return nil, fmt.Errorf("option %s: id %d is not mapped in this container", d, n)
			}
			d = k + "=" + strconv.Itoa(int(id))
		}
		have[k] = true
		out = append(out, d)
	}
	if fsType == "tmpfs" {
		if !have["uid"] {
			out = append(out, "uid="+strconv.Itoa(owner.uid))
		}
		if !have["gid"] {
			out = append(out, "gid="+strconv.Itoa(owner.gid))
		}
	}
	return out, nil
}

// detachedBind copies the mount at source. Its locked flags (a nosuid home) come with it.
func detachedBind(source string, o mountOptions) (fd int, folder bool, err error) {
	from, err := unix.Open(source, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return -1, false, fmt.Errorf("bind source path does not exist: %s", source)
	}
	if err != nil {
		return -1, false, fmt.Errorf("bind source %s: %w", source, err)
	}
	defer unix.Close(from)
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return -1, false, fmt.Errorf("bind source %s: %w", source, err)
	}
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH)
	if o.recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err = unix.OpenTree(from, "", flags)
	if errors.Is(err, unix.EINVAL) && !o.recursive {
		// A folder with mounts in it that came from the host can only be bound with them: hiding one from under another
		// user's mount is what the lock is for.
		fd, err = unix.OpenTree(from, "", flags|unix.AT_RECURSIVE)
	}
	if err != nil {
		return -1, false, fmt.Errorf("bind %s: %w", source, err)
	}
	if err := o.apply(fd); err != nil {
		unix.Close(fd)
		return -1, false, fmt.Errorf("bind %s: %w", source, err)
	}
	return fd, st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

// fillDev puts into a fresh /dev what docker's has: nodes bound from the host, for none can be made without root, and
// the usual links.
func fillDev(root int, spec *specs.Spec, owner owner) error {
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		tree, _, err := detachedBind("/dev/"+name, mountOptions{})
		if err != nil {
			return err
		}
		err = place(root, "/dev/"+name, tree, false, owner)
		unix.Close(tree)
		if err != nil {
			return fmt.Errorf("/dev/%s: %w", name, err)
		}
	}
	dev, err := openIn(root, "/dev", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(dev)
	for _, l := range [][2]string{{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"},
		{"stderr", "/proc/self/fd/2"}, {"core", "/proc/kcore"}, {"ptmx", "pts/ptmx"}} {
		if err := unix.Symlinkat(l[1], dev, l[0]); err != nil {
			return fmt.Errorf("/dev/%s: %w", l[0], err)
		}
		if err := unix.Fchownat(dev, l[0], owner.uid, owner.gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("/dev/%s: %w", l[0], err)
		}
	}
	if spec.Process.Terminal {
		// The place on which the init binds the terminal.
		fd, err := mountPoint(root, "/dev/console", false, owner.uid, owner.gid)
		if err != nil {
			return err
		}
		unix.Close(fd)
	}
	return nil
}
