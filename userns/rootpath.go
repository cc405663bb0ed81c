package userns

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// openIn opens p below root as a process whose root it is would: no symlink leads out of it (openat2(2)).
func openIn(root int, p string, flags uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(root, p, &how)
		// EAGAIN: something was renamed meanwhile, and the kernel cannot tell that the way did not lead out.
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}

// mountPoint opens the place for a mount below root, O_PATH, and makes what is missing of it: folders owned by uid and
// gid, and at the end a folder or an empty file.
func mountPoint(root int, p string, folder bool, uid, gid int) (int, error) {
	p = path.Clean("/" + p)
	fd, err := openIn(root, p, unix.O_PATH)
	if err == nil || !errors.Is(err, unix.ENOENT) {
		return fd, wrapPath("open mount point", p, err)
	}
	parts := strings.Split(strings.Trim(p, "/"), "/")
	for i, name := range parts {
		here := "/" + strings.Join(parts[:i+1], "/")
		if fd, err := openIn(root, here, unix.O_PATH); err == nil {
			unix.Close(fd)
			continue
		} else if !errors.Is(err, unix.ENOENT) {
			return -1, wrapPath("open mount point", here, err)
		}
		dir, err := openIn(root, path.Dir(here), unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return -1, wrapPath("open mount point", path.Dir(here), err)
		}
		if last := i == len(parts)-1; last && !folder {
			err = unix.Mknodat(dir, name, unix.S_IFREG|0o644, 0)
		} else {
			err = unix.Mkdirat(dir, name, 0o755)
		}
		if err == nil && (uid != 0 || gid != 0) {
			err = unix.Fchownat(dir, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
		}
		unix.Close(dir)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return -1, wrapPath("make mount point", here, err)
		}
	}
	fd, err = openIn(root, p, unix.O_PATH)
	return fd, wrapPath("open mount point", p, err)
}

func wrapPath(what, p string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", what, p, err)
}

func fdPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }
