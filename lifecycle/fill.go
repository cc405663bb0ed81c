package lifecycle

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/moss-run/moss/image/erofs"
)

// rootID is the container's root as the monitor's user namespace knows it.
func (m *monitor) rootID(maps []specs.LinuxIDMapping) int { return hostOf(maps, 0) }

// hostOf is the monitor's id for a container's; one that is not mapped is given to the container's root.
func hostOf(maps []specs.LinuxIDMapping, id uint32) int {
	for _, r := range maps {
		if id >= r.ContainerID && id-r.ContainerID < r.Size {
			return int(r.HostID + id - r.ContainerID)
		}
	}
	if id == 0 {
		return 0
	}
	return hostOf(maps, 0)
}

// fillVolumes copies what the image has at a volume's place into volumes that are empty, with its owners and modes, as
// docker does when a container is made. It reads the image's tree and not the mounted root, which this very process
// serves.
func (m *monitor) fillVolumes(tree *erofs.Image) error {
	nocopy := map[string]bool{}
	for _, mt := range m.rec.HostConfig.Mounts {
		nocopy[path.Clean(mt.Target)] = mt.VolumeOptions != nil && mt.VolumeOptions.NoCopy
	}
	for _, mt := range m.rec.Mounts {
		if mt.Type != mount.TypeVolume {
			continue
		}
		entries, err := os.ReadDir(mt.Source)
		if err != nil {
			return fmt.Errorf("volume %s: %w", mt.Name, err)
		}
		if len(entries) > 0 || nocopy[mt.Destination] || hasOption(mt.Mode, "nocopy") {
			continue
		}
		c := copier{tree: tree, m: m, links: map[uint64]string{}}
		node, errno := tree.Resolve(mt.Destination)
		if errno != 0 {
			if err := os.Chown(mt.Source, m.rootID(m.cfg.IDs.InnerUIDs), m.rootID(m.cfg.IDs.InnerGIDs)); err != nil {
				return fmt.Errorf("volume %s: %w", mt.Name, err)
			}
			continue
		}
		if err := c.folder(node, mt.Source); err != nil {
			return fmt.Errorf("copy %s of the image into volume %s: %w", mt.Destination, mt.Name, err)
		}
	}
	return nil
}

func hasOption(mode, option string) bool {
	for _, o := range strings.Split(mode, ",") {
		if o == option {
			return true
		}
	}
	return false
}

// copier copies a part of an image's tree to a folder of the host.
type copier struct {
	tree  *erofs.Image
	m     *monitor
	links map[uint64]string // nodes of several names, and where the first was put
}

func (c *copier) folder(node uint64, to string) error {
	var st unix.Stat_t
	if errno := c.tree.Stat(node, &st); errno != 0 {
		return errno
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil // docker copies nothing when the image has a file there
	}
	type entry struct {
		name string
		node uint64
	}
	var entries []entry
	errno := c.tree.ReadDir(node, 0, func(name string, n uint64, _ uint32, _ uint64) bool {
		entries = append(entries, entry{strings.Clone(name), n})
		return true
	})
	if errno != 0 {
		return errno
	}
	for _, e := range entries {
		if err := c.entry(e.node, path.Join(to, e.name)); err != nil {
			return err
		}
	}
	return c.dress(node, &st, to)
}

func (c *copier) entry(node uint64, to string) error {
	var st unix.Stat_t
	if errno := c.tree.Stat(node, &st); errno != 0 {
		return errno
	}
	if first, ok := c.links[node]; ok {
		return os.Link(first, to)
	}
	if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		c.links[node] = to
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err := os.Mkdir(to, 0o700); err != nil {
			return err
		}
		return c.folder(node, to)
	case unix.S_IFREG:
		if err := c.file(node, to); err != nil {
			return err
		}
	case unix.S_IFLNK:
		target, errno := c.tree.Readlink(node)
		if errno != 0 {
			return errno
		}
		if err := os.Symlink(target, to); err != nil {
			return err
		}
	case unix.S_IFIFO, unix.S_IFSOCK:
		if err := unix.Mknod(to, st.Mode&unix.S_IFMT|0o600, 0); err != nil {
			return &os.PathError{Op: "mknod", Path: to, Err: err}
		}
	default:
		return nil // a device: nobody without root can make one
	}
	return c.dress(node, &st, to)
}

func (c *copier) file(node uint64, to string) error {
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	for off := int64(0); ; {
		n, errno := c.tree.Read(node, buf, off)
		if errno != 0 {
			f.Close()
			return &os.PathError{Op: "read", Path: to, Err: errno}
		}
		if n == 0 {
			return f.Close()
		}
		if _, err := f.Write(buf[:n]); err != nil {
			f.Close()
			return err
		}
		off += int64(n)
	}
}

// dress gives a copy its owner, mode, user xattrs and times, in the order in which they do not undo each other.
func (c *copier) dress(node uint64, st *unix.Stat_t, to string) error {
	if err := os.Lchown(to, hostOf(c.m.cfg.IDs.InnerUIDs, st.Uid), hostOf(c.m.cfg.IDs.InnerGIDs, st.Gid)); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
			return &os.PathError{Op: "chmod", Path: to, Err: err}
		}
	}
	var names []string
	_ = c.tree.ListXattr(node, func(name string) bool {
		names = append(names, strings.Clone(name))
		return true
	})
	for _, name := range names {
		v, errno := c.tree.GetXattr(node, name)
		if errno != 0 {
			continue
		}
		if err := unix.Lsetxattr(to, name, v, 0); err != nil && !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.ENOTSUP) {
			return &os.PathError{Op: "setxattr " + name, Path: to, Err: err}
		}
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, to, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}
