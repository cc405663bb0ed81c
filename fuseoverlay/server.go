package fuseoverlay

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/containerd/errdefs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// ImageOptions say how a tree is shown.
type ImageOptions struct {
	UIDs, GIDs []specs.LinuxIDMapping // container id -> id of the mounting user namespace; empty: the same
	// Panicked, if set, hears of a panic in the tree; the request that met it has failed with EIO.
	Panicked func(what any, stack []byte)
}

// Server serves a tree until it is closed. It owns the mount, and the tree only in so far as the tree must outlive it.
type Server struct {
	dir   string
	ended chan struct{}
}

// The longest time that FUSE can tell: nothing in an image ever changes.
const forever = 1 << 32

const maxRead = 1 << 20

// closeWait is how long Close waits for the kernel to let go.
const closeWait = 10 * time.Second

// Serve mounts tree on dir, read-only, and serves it until Close. The caller has CAP_SYS_ADMIN in its user namespace
// and a mount namespace that belongs to it.
//
// It mounts by itself and hands go-fuse the descriptor: go-fuse's own direct mount opens the device without
// close-on-exec, and every program that is started later would hold the connection open.
func Serve(tree Tree, dir string, opt ImageOptions) (*Server, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, deviceError(err)
	}
	fs := newImageFS(tree, opt)
	// Not nosuid: setuid programs of the image must work. The kernel adds nodev by itself in a user namespace.
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,allow_other,default_permissions,max_read=%d",
		fd, os.Geteuid(), os.Getegid(), maxRead)
	if err := unix.Mount("moss", dir, "fuse.moss", unix.MS_RDONLY|unix.MS_NODEV, data); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("mount the image on %s (fuse): %w: %w", dir, errdefs.ErrUnavailable, err)
	}
	srv, err := fuse.NewServer(fs, fmt.Sprintf("/dev/fd/%d", fd), &fuse.MountOptions{
		AllowOther:               true,
		MaxBackground:            64,
		MaxWrite:                 maxRead,
		DisableXAttrs:            !fs.xattrs,
		EnableSymlinkCaching:     true,
		ExplicitDataCacheControl: true,
		DisableSplice:            true, // measured: no gain over a copy, and pipes to keep
		// Passthrough is refused without root, and would cost one of the kernel's two levels of stacking.
		DisabledCapabilities: fuse.CAP_PASSTHROUGH,
		ExtraCapabilities:    fuse.CAP_NO_OPENDIR_SUPPORT,
		Logger:               log.New(io.Discard, "", 0), // a reply to a request that was given up is no news
		PanicHandler: func(what any) fuse.Status {
			if opt.Panicked != nil {
				opt.Panicked(what, debug.Stack())
			}
			return fuse.EIO
		},
	})
	if err != nil {
		// go-fuse has closed the descriptor, or never took it; the mount ends with this unmount either way.
		_ = unix.Unmount(dir, unix.MNT_DETACH)
		return nil, fmt.Errorf("serve the image: %w: %w", errdefs.ErrUnavailable, err)
	}
	s := &Server{dir: dir, ended: make(chan struct{})}
	go func() {
		srv.Serve()
		close(s.ended)
	}()
	if err := settlePoll(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("try the served image: %w", err), s.Close())
	}
	return s, nil
}

// settlePoll makes the kernel ask once whether files can be polled, and learn that they cannot. Otherwise it asks when
// Go's runtime adds the first file that this process opens to its epoll set: that call holds up a garbage collection,
// which holds up the thread that would answer, and the process, half dead in the kernel, cannot even be killed.
// go-fuse has a file for this purpose, which it answers for by itself; it knows no mount point here, so we ask.
func settlePoll(dir string) error {
	fd, err := unix.Open(filepath.Join(dir, ".go-fuse-epoll-hack"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	// Its answer does not matter, nor a signal that comes in between: it has been asked.
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return unix.Close(fd)
}

func deviceError(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("open /dev/fuse: %w: %w; an administrator can load it with: modprobe fuse", errdefs.ErrUnavailable, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("open /dev/fuse: %w: %w; an administrator can open it to users with: chmod 666 /dev/fuse", errdefs.ErrPermissionDenied, err)
	}
	return fmt.Errorf("open /dev/fuse: %w", err)
}

// Close unmounts the tree and waits for the server to end; only then may the tree be closed. What still uses the mount
// (an open file, a mount namespace that holds a copy) keeps it alive: after ten seconds Close gives up with an error,
// and the tree is still being served.
func (s *Server) Close() error {
	if err := unix.Unmount(s.dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the image from %s: %w", s.dir, err)
	}
	select {
	case <-s.ended:
		return nil
	case <-time.After(closeWait):
		return fmt.Errorf("unmount the image from %s: %w: a process still uses it", s.dir, errdefs.ErrUnavailable)
	}
}

// Wait returns when the kernel has let go of the mount.
func (s *Server) Wait() { <-s.ended }
