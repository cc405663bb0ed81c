package runinit

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/moss-run/moss/userns/initproto"
)

// mountInside makes the mounts that belong to the container's namespaces and changes the root.
func (s *session) mountInside() error {
	// Nothing that happens here may reach the namespace around, and nothing mounted there later may come in.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// The root is the working folder. It is a mount that was copied from another user namespace, and so locked in its
	// place; a copy of it on top is not, and can become the root (pivot_root(2)). The copy is recursive: what lies on the
	// root is locked to it.
	rootFd, err := unix.OpenTree(unix.AT_FDCWD, ".", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return fmt.Errorf("copy the root file system's mounts: %w", err)
	}
	defer unix.Close(rootFd)
	if err := unix.MoveMount(rootFd, "", unix.AT_FDCWD, ".", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach the root file system: %w", err)
	}
	for i, m := range s.cfg.Inner {
		if err := s.mountOne(rootFd, m, s.cfg.InnerFD[i]); err != nil {
			return fmt.Errorf("mount %s: %w", m.Destination, err)
		}
	}
	// The new root goes on the old one's place with the old one on top of it, and the top is taken off.
	if err := unix.Fchdir(rootFd); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the host's root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	return nil
}

// mountOne mounts one file system of the container's own namespaces, or moves a mount that was made outside.
func (s *session) mountOne(root int, m specs.Mount, tree int) error {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	if tree < 0 {
		// /proc and /sys themselves must be where the image says they are: a link would put them anywhere.
		how.Resolve |= unix.RESOLVE_NO_SYMLINKS
	}
	at, err := unix.Openat2(root, m.Destination, &how)
	if errors.Is(err, unix.ENOENT) && m.Type == "cgroup" {
		return nil // the kernel has no cgroups
	}
	if err != nil {
		return fmt.Errorf("open mount point: %w", err)
	}
	defer unix.Close(at)
	if tree >= 0 {
		return unix.MoveMount(tree, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	}
	flags, data := flagsOf(m.Options)
	target := fmt.Sprintf("/proc/self/fd/%d", at)
	fsType := m.Type
	if fsType == "cgroup" {
		fsType = "cgroup2"
	}
	err = unix.Mount(m.Source, target, fsType, flags, data)
	switch {
	case err == nil:
		return nil
	case fsType == "cgroup2":
		// A kernel whose controllers are all in the old hierarchies, or that delegates nothing: /sys/fs/cgroup stays as
		// sysfs shows it, empty.
		return nil
	case fsType == "sysfs" && errors.Is(err, unix.EPERM):
		// sysfs shows the network namespace, and only its owner may mount it. With the host's network, the host's /sys is
		// shown, read-only.
		return bindReadOnly("/sys", at)
	case fsType == "proc" && errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: the kernel refuses a new /proc where the one around is partly hidden, as in a container; that one has to be run with its own /proc unmasked", err)
	}
	return err
}

func bindReadOnly(source string, at int) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return fmt.Errorf("bind %s: %w", source, err)
	}
	defer unix.Close(tree)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		return fmt.Errorf("make %s read-only: %w", source, err)
	}
	return unix.MoveMount(tree, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

func flagsOf(options []string) (flags uintptr, data string) {
	known := map[string]uintptr{"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
		"relatime": unix.MS_RELATIME, "noatime": unix.MS_NOATIME, "strictatime": unix.MS_STRICTATIME, "rw": 0}
	var rest []string
	for _, o := range options {
		if f, ok := known[o]; ok {
			flags |= f
		} else {
			rest = append(rest, o)
		}
	}
	return flags, strings.Join(rest, ",")
}

// protect hides and freezes what the spec says, and the root at last. The paths are /proc's and /sys's, which are
// mounted by us; a link among them (runc's CVE-2025-31133 and its kin) is refused and not followed.
func protect(spec *specs.Spec) error {
	for _, p := range spec.Linux.ReadonlyPaths {
		fd, err := openPlain(p)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return fmt.Errorf("make %s read-only: %w", p, err)
		}
		err = onto(p, fd, unix.MOUNT_ATTR_RDONLY)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("make %s read-only: %w", p, err)
		}
	}
	for _, p := range spec.Linux.MaskedPaths {
		if err := mask(p); err != nil {
			return fmt.Errorf("hide %s: %w", p, err)
		}
	}
	if spec.Root.Readonly {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(unix.AT_FDCWD, "/", 0, &attr); err != nil {
			return fmt.Errorf("make the root read-only: %w", err)
		}
	}
	return nil
}

func openPlain(p string) (int, error) {
	return unix.Openat2(unix.AT_FDCWD, p, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC | unix.O_NOFOLLOW, Resolve: unix.RESOLVE_NO_SYMLINKS})
}

// onto binds what fd is over itself with attributes.
func onto(p string, fd int, attrs uint64) error {
	tree, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attrs}); err != nil {
		return err
	}
	return unix.MoveMount(tree, "", fd, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// mask puts an empty folder over a folder and /dev/null over a file.
func mask(p string) error {
	fd, err := openPlain(p)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return emptyOnto(fd)
	}
	// Only the real null device will do: an image's own /dev/null could be anything.
	null, err := openPlain("/dev/null")
	if err != nil {
		return err
	}
	defer unix.Close(null)
	var ns unix.Stat_t
	if err := unix.Fstat(null, &ns); err != nil {
		return err
	}
	if ns.Mode&unix.S_IFMT != unix.S_IFCHR || ns.Rdev != unix.Mkdev(1, 3) {
		return errors.New("/dev/null is not the null device")
	}
	return bindOnto(null, fd)
}

// bindOnto attaches a copy of what one descriptor is on another. No path is walked: this happens in the container's
// root, where the image could have put anything.
func bindOnto(source, target int) error {
	tree, err := unix.OpenTree(source, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return unix.MoveMount(tree, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// emptyOnto attaches an empty read-only folder.
func emptyOnto(target int) error {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fs)
	for _, o := range [][2]string{{"size", "0"}, {"nr_inodes", "1"}, {"mode", "0755"}} {
		if err := unix.FsconfigSetString(fs, o[0], o[1]); err != nil {
			return err
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return err
	}
	tree, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return unix.MoveMount(tree, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// terminal opens a new terminal of the container's devpts, sends its master side out, and makes it the process's own.
func (s *session) terminal() error {
	master, err := unix.Open("/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a terminal: %w", err)
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return fmt.Errorf("unlock the terminal: %w", err)
	}
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		return fmt.Errorf("name the terminal: %w", err)
	}
	name := fmt.Sprintf("/dev/pts/%d", n)
	slave, err := unix.Open(name, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	if console, err := openPlain("/dev/console"); err == nil {
		err = bindOnto(slave, console)
		unix.Close(console)
		if err != nil {
			return fmt.Errorf("bind /dev/console: %w", err)
		}
	}
	if size := s.cfg.Spec.Process.ConsoleSize; size != nil {
		if err := unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(size.Height), Col: uint16(size.Width)}); err != nil {
			return fmt.Errorf("set the terminal's size: %w", err)
		}
	}
	if err := initproto.Send(s.fd, initproto.Message{Kind: initproto.Console}, master); err != nil {
		return err
	}
	unix.Close(master)
	for fd := range 3 {
		if err := unix.Dup3(slave, fd, 0); err != nil {
			return err
		}
	}
	unix.Close(slave)
	if !s.cfg.Init { // below the reaper, the command gets it
		return unix.IoctlSetInt(0, unix.TIOCSCTTY, 0)
	}
	return nil
}

func setNames(spec *specs.Spec) error {
	if spec.Hostname != "" {
		if err := unix.Sethostname([]byte(spec.Hostname)); err != nil {
			return fmt.Errorf("set hostname %q: %w", spec.Hostname, err)
		}
	}
	if spec.Domainname != "" {
		if err := unix.Setdomainname([]byte(spec.Domainname)); err != nil {
			return fmt.Errorf("set domain name %q: %w", spec.Domainname, err)
		}
	}
	return nil
}

// loopbackUp sets lo up in a network namespace of the container's own.
func loopbackUp(spec *specs.Spec) error {
	for _, n := range spec.Linux.Namespaces {
		if n.Type != specs.NetworkNamespace {
			continue
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("set lo up: %w", err)
		}
		defer unix.Close(fd)
		req, err := unix.NewIfreq("lo")
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_UP)
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
			return fmt.Errorf("set lo up: %w", err)
		}
	}
	return nil
}

func newSessionKeyring() error {
	// An anonymous one: a null name, which package unix cannot say.
	_, _, e := unix.RawSyscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0)
	if e != 0 && e != unix.ENOSYS && e != unix.EDQUOT && e != unix.EPERM { // no keys in this kernel, none left for this user, or forbidden by a filter around
		return fmt.Errorf("make a session keyring: %w", e)
	}
	return nil
}

// writeSysctls sets what belongs to the container's namespaces; the kernel refuses the rest.
func writeSysctls(spec *specs.Spec) error {
	for k, v := range spec.Linux.Sysctl {
		if strings.Contains(k, "..") {
			return fmt.Errorf("sysctl %q: not a name", k)
		}
		p := "/proc/sys/" + strings.ReplaceAll(k, ".", "/")
		if err := os.WriteFile(p, []byte(v), 0); err != nil {
			if k == "net.ipv4.ip_unprivileged_port_start" {
				continue // our own default, on a kernel that does not have it
			}
			return fmt.Errorf("sysctl %s=%s: %w; only those of the container's own namespaces can be set", k, v, err)
		}
	}
	return nil
}
