package fuseoverlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// RootConfig describes a container's root file system.
type RootConfig struct {
	Tree       Tree
	Upper      string // the writable layer; its own attributes become those of "/"
	Work       string // a folder of the same file system, for the overlay's own use
	Mounts     string // a folder of the caller's own in which the mount points are made
	UIDs, GIDs []specs.LinuxIDMapping
	// Throwaway skips what makes the upper survive a crash of the machine: for a container that is removed at its end.
	Throwaway bool
}

// Root is a mounted root file system. It owns its mounts and the image server.
type Root struct {
	Dir  string // where it is mounted
	Mode string // "stacked"
	srv  *Server
}

// ErrUnsupported says that the chosen way does not work on this machine or file system.
var ErrUnsupported = errors.New("not supported here")

// MountRoot serves the image and mounts the writable layer on it. The caller's process serves the image itself, in
// other threads, while the kernel looks at it: at least two of them must be able to run.
func MountRoot(cfg RootConfig) (*Root, error) {
	if mode := os.Getenv("MOSS_ROOTFS"); mode != "" && mode != "stacked" {
		return nil, fmt.Errorf("MOSS_ROOTFS=%s: %w: there is only stacked yet", mode, ErrUnsupported)
	}
	if runtime.GOMAXPROCS(0) < 2 {
		runtime.GOMAXPROCS(2)
	}
	image, dir := filepath.Join(cfg.Mounts, "image"), filepath.Join(cfg.Mounts, "root")
	for _, d := range []string{image, dir} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	if err := dressUpper(cfg); err != nil {
		return nil, err
	}
	srv, err := Serve(cfg.Tree, image, ImageOptions{UIDs: cfg.UIDs, GIDs: cfg.GIDs})
	if err != nil {
		return nil, err
	}
	if err := mountOverlay(dir, image, cfg); err != nil {
		srv.Close()
		return nil, err
	}
	return &Root{Dir: dir, Mode: "stacked", srv: srv}, nil
}

// dressUpper gives the upper's top folder the owner and mode of the image's: the overlay shows the upper's. A folder
// that was dressed before keeps what the container has made of it.
func dressUpper(cfg RootConfig) error {
	marker := filepath.Join(cfg.Work, "dressed")
	if _, err := os.Lstat(marker); err == nil {
		return nil
	}
	var st unix.Stat_t
	if errno := cfg.Tree.Stat(cfg.Tree.Root(), &st); errno != 0 {
		return fmt.Errorf("look at the image's root: %w", errno)
	}
	uids, gids := newIDMap(cfg.UIDs), newIDMap(cfg.GIDs)
	if err := os.Chown(cfg.Upper, int(uids.host(st.Uid)), int(gids.host(st.Gid))); err != nil {
		return fmt.Errorf("prepare the writable layer: %w", err)
	}
	if err := unix.Chmod(cfg.Upper, st.Mode&0o7777); err != nil {
		return fmt.Errorf("prepare the writable layer: %w", err)
	}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, cfg.Upper, []unix.Timespec{st.Mtim, st.Mtim}, 0); err != nil {
		return fmt.Errorf("prepare the writable layer: %w", err)
	}
	return os.WriteFile(marker, nil, 0o600)
}

// mountOverlay mounts the kernel's overlay on dir. Its folders are named by descriptor: a path may hold the blanks,
// commas and colons that mean something in mount options, and be longer than a page of them.
func mountOverlay(dir, image string, cfg RootConfig) error {
	opts := "userxattr"
	work := filepath.Join(cfg.Work, "overlay")
	if err := os.MkdirAll(work, 0o700); err != nil {
		return err
	}
	if cfg.Throwaway {
		opts += ",volatile"
	}
	// What a monitor that was killed left: the mark of a volatile mount makes the kernel refuse the next one.
	if err := os.RemoveAll(filepath.Join(work, "work", "incompat")); err != nil {
		return err
	}
	for _, d := range []struct{ option, path string }{{"lowerdir", image}, {"upperdir", cfg.Upper}, {"workdir", work}} {
		fd, err := unix.Open(d.path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", d.path, err)
		}
		defer unix.Close(fd)
		opts += fmt.Sprintf(",%s=/proc/self/fd/%d", d.option, fd)
	}
	if err := unix.Mount("moss", dir, "overlay", 0, opts); err != nil {
		return fmt.Errorf("mount the writable layer (overlay, upper on %s): %w: %w; set MOSS_ROOT to a folder on a local disk (ext4, xfs, btrfs), or see moss doctor",
			FileSystem(cfg.Upper), ErrUnsupported, err)
	}
	return nil
}

// Close unmounts the root and the image below it.
func (r *Root) Close() error {
	err := unix.Unmount(r.Dir, unix.MNT_DETACH)
	if err != nil {
		err = fmt.Errorf("unmount %s: %w", r.Dir, err)
	}
	return errors.Join(err, r.srv.Close())
}

// fileSystems are the kernel's names for the magic numbers of statfs(2).
var fileSystems = map[int64]string{
	unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs",
	unix.NFS_SUPER_MAGIC: "nfs", unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.FUSE_SUPER_MAGIC: "fuse", 0x0bd00bd0: "lustre",
	unix.CEPH_SUPER_MAGIC: "ceph", 0x19830326: "beegfs", 0x47504653: "gpfs", unix.AFS_SUPER_MAGIC: "afs", unix.F2FS_SUPER_MAGIC: "f2fs",
	0x2fc12fc1: "zfs", unix.SMB2_SUPER_MAGIC: "smb2", unix.CIFS_SUPER_MAGIC: "cifs",
}

// FileSystem names the type of the file system that path lies on.
func FileSystem(path string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return "unknown"
	}
	if n, ok := fileSystems[int64(st.Type)]; ok {
		return n
	}
	return fmt.Sprintf("type %#x", st.Type)
}
