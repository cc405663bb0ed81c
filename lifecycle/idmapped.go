package lifecycle

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/moss-run/moss/userns"
)

// When root is the caller, the container's root is not: files of root's in a bind mount would be nobody's inside. So
// bind mounts are id-mapped (mount_setattr(2), MOUNT_ATTR_IDMAP): id 0 on disk is the container's id 0, and so on. Only
// real root may do that, so the starter does, and hands the monitor the detached mounts.

// idMapped opens a detached, id-mapped mount for each bind mount of r, by destination. Those on file systems that
// cannot be id-mapped are left out.
func idMapped(r *Record, ids userns.Mapping, helper Program) (map[string]*os.File, error) {
	mounts := map[string]*os.File{}
	if ids.Kind != userns.Root {
		return mounts, nil
	}
	var ns *os.File
	for _, m := range r.Mounts {
		if m.Type != mount.TypeBind {
			continue
		}
		if ns == nil {
			var err error
			if ns, err = containerIDs(ids, helper); err != nil {
				return mounts, err
			}
			defer ns.Close()
		}
		flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_RECURSIVE)
		tree, err := unix.OpenTree(unix.AT_FDCWD, m.Source, flags)
		if err != nil {
			continue // the monitor tells what is wrong with the source
		}
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())}
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
			unix.Close(tree)
			continue
		}
		mounts[m.Destination] = os.NewFile(uintptr(tree), m.Source)
	}
	return mounts, nil
}

// containerIDs makes a user namespace that has the container's ids in terms of the caller's: container ids are mapped
// to outer ones and those to the caller's. A process has to be in it for it to be made; the init waits for its orders
// on descriptor 3, and ends when they do not come.
func containerIDs(ids userns.Mapping, helper Program) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	defer w.Close()
	cmd := &exec.Cmd{Path: helper.Path, Args: helper.Args, ExtraFiles: []*os.File{r}, SysProcAttr: &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, UidMappings: composed(ids.InnerUIDs, ids.OuterUIDs), GidMappings: composed(ids.InnerGIDs, ids.OuterGIDs),
		GidMappingsEnableSetgroups: true}}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("make a user namespace for bind mounts: %w", err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	return os.Open("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/ns/user")
}

// composed is inner seen through outer. Each range of inner lies in one of outer's.
func composed(inner, outer []specs.LinuxIDMapping) []syscall.SysProcIDMap {
	var out []syscall.SysProcIDMap
	for _, i := range inner {
		for _, o := range outer {
			if i.HostID >= o.ContainerID && i.HostID-o.ContainerID < o.Size {
				out = append(out, syscall.SysProcIDMap{ContainerID: int(i.ContainerID), HostID: int(o.HostID + i.HostID - o.ContainerID), Size: int(min(i.Size, o.Size-(i.HostID-o.ContainerID)))})
			}
		}
	}
	return out
}

// placeIDMapped attaches the mounts that the starter handed over, in the monitor's own mount namespace, and makes the
// record's bind mounts come from there.
func (m *monitor) placeIDMapped() error {
	for i, mt := range m.rec.Mounts {
		fd, ok := m.cfg.IDMapped[mt.Destination]
		if !ok {
			continue
		}
		unix.CloseOnExec(fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return fmt.Errorf("bind mount %s: %w", mt.Destination, err)
		}
		at := filepath.Join(m.cfg.RunDir, "bind-"+strconv.Itoa(i))
		var err error
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			err = os.Mkdir(at, 0o700)
		} else {
			err = os.WriteFile(at, nil, 0o600)
		}
		if err == nil || errors.Is(err, os.ErrExist) {
			err = unix.MoveMount(fd, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
		}
		if err != nil {
			return fmt.Errorf("bind mount %s: %w", mt.Destination, err)
		}
		m.defer_(func() {
			_ = unix.Unmount(at, unix.MNT_DETACH)
			_ = os.Remove(at)
		})
		m.rec.Mounts[i].Source = at
	}
	return nil
}
