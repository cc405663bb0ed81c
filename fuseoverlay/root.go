package fuseoverlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/containerd/errdefs"
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
	// ReadOnly mounts the root so that nothing can be written, nor a mount point made: they must be there.
	ReadOnly bool
	// Throwaway skips what makes the upper survive a crash of the machine: for a container that is removed at its end.
	Throwaway bool
	Panicked  func(what any, stack []byte) // see ImageOptions
}

// Root is a mounted root file system. It owns its mounts and the image server.
type Root struct {
	Dir  string // where it is mounted
	Mode string // "stacked"
	srv  *Server
	work string
}

// MountRoot serves the image and mounts the writable layer on it. The caller's process serves the image itself, in
// other threads, while the kernel looks at it: at least two of them must be able to run.
func MountRoot(cfg RootConfig) (*Root, error) {
	if err := checkMode(os.Getenv("MOSS_ROOTFS")); err != nil {
		return nil, err
	}
	// More than four only make the threads hand requests to each other (measured: 11 us a request with two, 19 with eight).
	if n := runtime.GOMAXPROCS(0); n < 2 || n > 4 {
		runtime.GOMAXPROCS(min(max(n, 2), 4))
	}
	image, dir := filepath.Join(cfg.Mounts, "image"), filepath.Join(cfg.Mounts, "root")
	for _, d := range []string{image, dir} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("make a mount point: %w", err)
		}
	}
	if err := dressUpper(cfg); err != nil {
		return nil, err
	}
	srv, err := Serve(cfg.Tree, image, ImageOptions{UIDs: cfg.UIDs, GIDs: cfg.GIDs, Panicked: cfg.Panicked})
	if err != nil {
		return nil, err
	}
	if err := mountOverlay(dir, image, cfg); err != nil {
		return nil, errors.Join(err, srv.Close())
	}
	return &Root{Dir: dir, Mode: "stacked", srv: srv, work: overlayWork(cfg)}, nil
}

// checkMode refuses the ways to make a root that are not there.
func checkMode(mode string) error {
	switch mode {
	case "", "stacked":
		return nil
	case "fuse":
		return fmt.Errorf("MOSS_ROOTFS=fuse: %w: not available yet; leave it unset", errdefs.ErrNotImplemented)
	}
	return fmt.Errorf("MOSS_ROOTFS=%s: %w: it is stacked or fuse", mode, errdefs.ErrInvalidArgument)
}

func overlayWork(cfg RootConfig) string { return filepath.Join(cfg.Work, "overlay") }

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
	uid, _ := uids.host(st.Uid)
	gid, _ := gids.host(st.Gid)
	if err := os.Chown(cfg.Upper, int(uid), int(gid)); err != nil {
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
	work := overlayWork(cfg)
	// What a monitor that was killed left: the mark of a volatile mount makes the kernel refuse the next one.
	if err := os.RemoveAll(work); err != nil {
		return fmt.Errorf("clear the overlay's work folder: %w", err)
	}
	if err := os.MkdirAll(work, 0o700); err != nil {
		return fmt.Errorf("make the overlay's work folder: %w", err)
	}
	if cfg.Throwaway {
		opts += ",volatile"
	}
	for _, d := range []struct{ option, path string }{{"lowerdir", image}, {"upperdir", cfg.Upper}, {"workdir", work}} {
		fd, err := unix.Open(d.path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", d.path, err)
		}
		defer unix.Close(fd)
		opts += fmt.Sprintf(",%s=/proc/self/fd/%d", d.option, fd)
	}
	var flags uintptr
	if cfg.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount("moss", dir, "overlay", flags, opts); err != nil {
		return overlayError(cfg.Upper, fmt.Errorf("%w: %w", errdefs.ErrUnavailable, err))
	}
	if cfg.ReadOnly {
		return nil
	}
	if err := checkXattrs(dir, work); err != nil {
		return errors.Join(overlayError(cfg.Upper, err), unix.Unmount(dir, unix.MNT_DETACH))
	}
	return nil
}

func overlayError(upper string, err error) error {
	return fmt.Errorf("mount the writable layer (overlay, %s on %s): %w; set MOSS_ROOT to a folder on a local disk (ext4, xfs, btrfs), or see moss doctor",
		upper, FileSystem(upper), err)
}

// checkXattrs refuses an upper whose file system has no user xattrs: the kernel mounts the overlay all the same, and
// then fails to replace a folder of the image, as the new one cannot be marked opaque.
func checkXattrs(dir, work string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("look at the new root: %w", err)
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return fmt.Errorf("%w: the kernel made it read-only, as the file system cannot hold the overlay's work folder", errdefs.ErrUnavailable)
	}
	const name = "user.overlay.opaque"
	if err := unix.Setxattr(work, name, []byte("n"), 0); err != nil {
		return fmt.Errorf("%w: no user xattrs there: %w", errdefs.ErrUnavailable, err)
	}
	if err := unix.Removexattr(work, name); err != nil {
		return fmt.Errorf("take the trial xattr back: %w", err)
	}
	return nil
}

// Close unmounts the root and the image below it, and removes the overlay's work folder, which its owner could not
// remove without the ids of the container.
func (r *Root) Close() error {
	var errs []error
	if err := unix.Unmount(r.Dir, unix.MNT_DETACH); err != nil {
		errs = append(errs, fmt.Errorf("unmount %s: %w", r.Dir, err))
	}
	if err := r.srv.Close(); err != nil {
		errs = append(errs, err) // something still uses the mounts: the kernel needs the work folder
	} else if err := os.RemoveAll(r.work); err != nil {
		errs = append(errs, fmt.Errorf("clear the overlay's work folder: %w", err))
	}
	return errors.Join(errs...)
}

// detachWait is how long Detach lets the kernel put the mounts away before it leaves them to it.
const detachWait = 50 * time.Millisecond

// Detach is Close for a process that ends right after: it takes the mounts out of sight and does not insist that the
// kernel is done with them, which it sometimes is only when the last of the container's namespaces has been put away.
// The tree must stay open.
func (r *Root) Detach() error {
	err := errors.Join(unix.Unmount(r.Dir, unix.MNT_DETACH), unix.Unmount(r.srv.dir, unix.MNT_DETACH))
	if err != nil {
		return fmt.Errorf("unmount %s: %w", r.Dir, err)
	}
	select {
	case <-r.srv.ended:
		if err := os.RemoveAll(r.work); err != nil {
			return fmt.Errorf("clear the overlay's work folder: %w", err)
		}
	case <-time.After(detachWait):
	}
	return nil
}

// fileSystems are the kernel's names for the magic numbers of statfs(2).
var fileSystems = map[int64]string{
	unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs", unix.RAMFS_MAGIC: "ramfs",
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
