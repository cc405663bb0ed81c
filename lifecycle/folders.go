package lifecycle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Open opens the containers below root, the folder of $MOSS_ROOT. It makes no folders: create does. programs is asked
// for what to execute when a container is started, or one with foreign ids removed.
func Open(root string, programs func() (Programs, error)) (*Engine, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	return &Engine{root: root, programs: programs}, nil
}

// Root is the folder that everything is kept below.
func (e *Engine) Root() string { return e.root }

func (e *Engine) containers() string { return filepath.Join(e.root, "containers") }
func (e *Engine) names() string      { return filepath.Join(e.root, "names") }
func (e *Engine) volumes() string    { return filepath.Join(e.root, "volumes") }
func (e *Engine) dir(id string) Dir  { return Dir(filepath.Join(e.containers(), id)) }
func (e *Engine) grave(id string) string {
	return filepath.Join(e.containers(), ".removing-"+id)
}

// RunDir is the folder for sockets and mount points of this host and boot: $XDG_RUNTIME_DIR/moss, else
// /tmp/moss-$UID, which must then be a folder of the caller's own that nobody else may enter.
func RunDir() (string, error) {
	uid := os.Getuid()
	if x := os.Getenv("XDG_RUNTIME_DIR"); x != "" && filepath.IsAbs(x) {
		dir := filepath.Join(x, "moss")
		if err := os.MkdirAll(dir, 0o700); err == nil && unix.Access(dir, unix.W_OK|unix.X_OK) == nil {
			return dir, nil
		}
	}
	dir := fmt.Sprintf("/tmp/moss-%d", uid)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("make the runtime folder: %w; set XDG_RUNTIME_DIR to a folder of your own", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return "", fmt.Errorf("runtime folder %s: %w", dir, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != uid {
		return "", fmt.Errorf("runtime folder %s is not a folder of user %d: remove it, or set XDG_RUNTIME_DIR to a folder of your own", dir, uid)
	}
	if st.Mode&0o777 != 0o700 {
		if err := os.Chmod(dir, 0o700); err != nil {
			return "", fmt.Errorf("runtime folder %s: %w", dir, err)
		}
	}
	return dir, nil
}

// containerRunDir is one container's folder below RunDir. Its name is short, since a socket's path may hold 107 bytes.
func containerRunDir(id string) (string, error) {
	dir, err := RunDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, id[:24]), nil
}

// clearRunDir removes a container's runtime folder, name by name: a bind mount in it that could not be taken down must
// not be walked into.
func clearRunDir(run string) {
	for _, name := range []string{"monitor.sock", ".bp.sock", ".bp-ready.pipe", ""} {
		_ = os.Remove(filepath.Join(run, name))
	}
}

// lockDir takes a container's lock, which its monitor holds for life. ok is false when somebody else has it.
// Closing the file gives the lock back, unless another process shares the open file.
func lockDir(d Dir) (f *os.File, ok bool, err error) {
	f, err = os.OpenFile(d.lock(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, err
	}
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case err == nil:
		return f, true, nil
	case errors.Is(err, syscall.EWOULDBLOCK):
		f.Close()
		return nil, false, nil
	default:
		f.Close()
		return nil, false, fmt.Errorf("lock %s: %w", d.lock(), err)
	}
}
