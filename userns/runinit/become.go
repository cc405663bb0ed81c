package runinit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"github.com/moby/sys/user"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/moss-run/moss/userns/initproto"
)

// commandError is about the command itself: docker has exit codes for it.
type commandError struct {
	text     string
	notFound bool
}

func (e *commandError) Error() string { return e.text }

// become turns the calling process into the spec's process. It returns only when that fails.
func (s *session) become() error {
	p := s.cfg.Spec.Process
	who, err := resolveUser(p.User)
	if err != nil {
		return err
	}
	env := withHome(p.Env, who.Home)
	if err := setLimits(p); err != nil {
		return err
	}
	if p.OOMScoreAdj != nil {
		if err := os.WriteFile("/proc/self/oom_score_adj", fmt.Append(nil, *p.OOMScoreAdj), 0); err != nil {
			return fmt.Errorf("set the OOM score: %w", err)
		}
	}
	// docker makes a working folder that is missing, owned by root; and a user may start in one that only root may enter,
	// as a user without a WORKDIR of its own does in /root. Where even root may not (NFS), the user may: see below.
	cwd := path.Clean("/" + p.Cwd)
	if err := os.MkdirAll(cwd, 0o755); err != nil && !errors.Is(err, os.ErrExist) && !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EACCES) {
		return fmt.Errorf("make working directory %s: %w", cwd, err)
	}
	entered := unix.Chdir(cwd)
	if entered != nil && !errors.Is(entered, unix.EACCES) && !errors.Is(entered, unix.EPERM) {
		return cwdError(cwd, entered)
	}
	giveStreams(who.Uid)
	// The container's network and files are complete only when the starter says so.
	if err := initproto.Send(s.fd, initproto.Message{Kind: initproto.Ready}, -1); err != nil {
		return err
	}
	var proceed struct{}
	if _, err := initproto.Receive(s.fd, &proceed); err != nil {
		return err
	}

	// Without no_new_privs the kernel takes a filter only from CAP_SYS_ADMIN, so the filter comes before the drop; its
	// first calls must then be ones that any profile allows. With it, last of all (seccomp(2)).
	if !p.NoNewPrivileges {
		if err := s.filter(); err != nil {
			return err
		}
	}
	if err := setIDs(p, who); err != nil {
		return err
	}
	if entered != nil {
		if err := unix.Chdir(cwd); err != nil {
			return cwdError(cwd, err)
		}
	}
	if cwd, err := unix.Getwd(); err != nil || !path.IsAbs(cwd) {
		// A working folder outside of the root means that a descriptor of the host got in (CVE-2024-21626).
		return errors.New("the working directory lies outside of the container's root")
	}
	exe, err := lookup(p.Args[0], env)
	if err != nil {
		return err
	}
	if p.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("set no_new_privs: %w", err)
		}
		if err := s.filter(); err != nil {
			return err
		}
	}
	if err := unix.CloseRange(3, ^uint(0)>>32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close what was inherited: %w", err)
	}
	defaultSignals()
	// A change of ids has cleared it. (The guard covers the time between, and what the command does later.)
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("tie to the monitor: %w", err)
	}
	if err := initproto.Send(s.fd, initproto.Message{Kind: initproto.Executing}, -1); err != nil {
		return err
	}
	err = syscall.Exec(exe, p.Args, env)
	text := fmt.Sprintf("exec %s: %v", exe, err)
	if errors.Is(err, unix.ENOENT) {
		text = fmt.Sprintf("exec %s: no such file or directory (its interpreter is missing)", exe)
	}
	return &commandError{text: text, notFound: errors.Is(err, unix.ENOENT)}
}

func cwdError(cwd string, err error) error {
	return &commandError{text: fmt.Sprintf("chdir to cwd (%q) set in config.json failed: %v", cwd, err), notFound: errors.Is(err, unix.ENOENT)}
}

// giveStreams makes the command's user the owner of its pipes and of its terminal: opening /dev/stdout, where many
// images send their logs, is opening them again. Regular files, which may be the user's own on the host, stay whose they
// are. What the kernel refuses (an owner without an id here) is left: the open descriptors work in any case.
func giveStreams(uid int) {
	for fd := range 3 {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil || int(st.Uid) == uid {
			continue
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFIFO, unix.S_IFSOCK:
		case unix.S_IFCHR:
			if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err != nil {
				continue
			}
		default:
			continue
		}
		_ = unix.Fchown(fd, uid, -1)
	}
}

// resolveUser finds docker's user string in the container's passwd and group.
func resolveUser(u specs.User) (*user.ExecUser, error) {
	groups := make([]int, len(u.AdditionalGids))
	for i, g := range u.AdditionalGids {
		groups[i] = int(g)
	}
	defaults := &user.ExecUser{Uid: int(u.UID), Gid: int(u.GID), Sgids: groups, Home: "/"}
	spec := u.Username
	if spec == "" {
		spec = fmt.Sprintf("%d", u.UID)
		if u.UID == 0 && u.GID == 0 {
			spec = "0"
		} else {
			spec = fmt.Sprintf("%d:%d", u.UID, u.GID)
		}
	}
	passwd, group := openRegular("/etc/passwd"), openRegular("/etc/group")
	who, err := user.GetExecUser(spec, defaults, passwd, group)
	for _, f := range []io.Reader{passwd, group} {
		if c, ok := f.(io.Closer); ok {
			c.Close()
		}
	}
	if err != nil {
		return nil, err
	}
	// Groups that were asked for by number come on top of those that the user is in.
	for _, g := range groups {
		if !slices.Contains(who.Sgids, g) {
			who.Sgids = append(who.Sgids, g)
		}
	}
	return who, nil
}

// openRegular opens a file of the image to read; one that is missing, or is no plain file (a fifo would hang us), is
// nothing.
func openRegular(p string) io.Reader {
	f, err := os.OpenFile(p, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return strings.NewReader("")
	}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		f.Close()
		return strings.NewReader("")
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(f, 16<<20), f}
}

func withHome(env []string, home string) []string {
	var rest []string
	for _, kv := range env {
		if strings.HasPrefix(kv, "HOME=") && kv != "HOME=" {
			return env
		}
		if kv != "HOME=" { // an empty one counts as none, and would be found before ours
			rest = append(rest, kv)
		}
	}
	if home == "" {
		home = "/"
	}
	return append(rest, "HOME="+home)
}

var limits = map[string]int{
	"RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_DATA": unix.RLIMIT_DATA, "RLIMIT_STACK": unix.RLIMIT_STACK,
	"RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_RSS": unix.RLIMIT_RSS, "RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE,
	"RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK, "RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS,
	"RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE,
	"RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
}

func setLimits(p *specs.Process) error {
	for _, l := range p.Rlimits {
		what, ok := limits[l.Type]
		if !ok {
			return fmt.Errorf("unknown limit %s", l.Type)
		}
		// Through package syscall, which otherwise puts the old number of files back when it executes the command.
		if err := syscall.Setrlimit(what, &syscall.Rlimit{Cur: l.Soft, Max: l.Hard}); err != nil {
			var now syscall.Rlimit
			_ = syscall.Getrlimit(what, &now)
			name := strings.ToLower(strings.TrimPrefix(l.Type, "RLIMIT_"))
			return fmt.Errorf("set ulimit %s=%d:%d: %w; without root it cannot be raised above the hard limit of the shell, %d (ulimit -H)",
				name, int64(l.Soft), int64(l.Hard), err, int64(now.Max))
		}
	}
	return nil
}

// setIDs drops to the process's user and capabilities, on this thread.
func setIDs(p *specs.Process, who *user.ExecUser) error {
	caps := p.Capabilities
	if caps == nil {
		caps = &specs.LinuxCapabilities{}
	}
	bounding := capMask(caps.Bounding)
	for c := 0; c < 64; c++ {
		if bounding&(1<<c) != 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); errors.Is(err, unix.EINVAL) {
			break // the kernel knows no more
		} else if err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return err
	}
	// The primary group is among the supplementary ones too: a file may refuse a group its mode's "other" bits allow
	// (CVE-2022-36109).
	if err := setGroups(append([]int{who.Gid}, who.Sgids...)); err != nil {
		return err
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(who.Gid), uintptr(who.Gid), uintptr(who.Gid)); e != 0 {
		return idError("gid", who.Gid, e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(who.Uid), uintptr(who.Uid), uintptr(who.Uid)); e != 0 {
		return idError("uid", who.Uid, e)
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 0, 0, 0, 0); err != nil {
		return err
	}
	// A user other than root gets capabilities only from the files that it executes, as everywhere; what the sets hold
	// is gone at the exec then, except for the ambient ones.
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	eff, perm, inh := capMask(caps.Effective), capMask(caps.Permitted), capMask(caps.Inheritable)
	data := [2]unix.CapUserData{
		{Effective: uint32(eff), Permitted: uint32(perm), Inheritable: uint32(inh)},
		{Effective: uint32(eff >> 32), Permitted: uint32(perm >> 32), Inheritable: uint32(inh >> 32)}}
	if err := unix.Capset(&head, &data[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	for c, ambient := 0, capMask(caps.Ambient); c < 64; c++ {
		if ambient&(1<<c) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(c), 0, 0); err != nil {
			return fmt.Errorf("raise ambient capability %d: %w", c, err)
		}
	}
	return nil
}

func setGroups(groups []int) error {
	ids := make([]uint32, len(groups)+1)
	for i, g := range groups {
		ids[i] = uint32(g)
	}
	_, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&ids[0])), 0)
	if e == unix.EPERM {
		if b, _ := os.ReadFile("/proc/self/setgroups"); strings.TrimSpace(string(b)) == "deny" {
			return nil // alone with one id: the kernel lets nobody change groups, and there are none to be had
		}
	}
	if e == unix.EINVAL {
		return fmt.Errorf("set groups %v: an id among them is not mapped in this container; a larger range in /etc/subgid would", groups)
	}
	if e != 0 {
		return fmt.Errorf("set groups %v: %w", groups, e)
	}
	return nil
}

func idError(what string, id int, e unix.Errno) error {
	if e == unix.EINVAL {
		m, _ := os.ReadFile("/proc/self/" + what + "_map")
		return fmt.Errorf("%s %d is not mapped in this container (%s: %s); a range in /etc/sub%s would give it one",
			what, id, what+" map", strings.Join(strings.Fields(string(m)), " "), what)
	}
	return fmt.Errorf("become %s %d: %w", what, id, e)
}

var capNumbers = strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
	NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT
	SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
	MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)

// capMask turns names into a set, leaving out what this kernel does not know.
func capMask(names []string) (set uint64) {
	for _, n := range names {
		for i, known := range capNumbers {
			if strings.TrimPrefix(n, "CAP_") == known && unix.Prctl(unix.PR_CAPBSET_READ, uintptr(i), 0, 0, 0) == nil {
				set |= 1 << i
			}
		}
	}
	return set
}

// filter installs the seccomp program on this thread.
func (s *session) filter() error {
	n := len(s.cfg.Seccomp) / 8
	if n == 0 {
		return nil
	}
	prog := unix.SockFprog{Len: uint16(n), Filter: (*unix.SockFilter)(unsafe.Pointer(&s.cfg.Seccomp[0]))}
	var flags uintptr
	if s.cfg.Log {
		flags |= unix.SECCOMP_FILTER_FLAG_LOG
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog))); e != 0 {
		return fmt.Errorf("install the seccomp filter: %w", e)
	}
	return nil
}

// lookup finds the command as execvp(3) does, in the container's PATH.
func lookup(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		if err := executable(name); err != nil {
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
				return "", &commandError{text: fmt.Sprintf("exec: %q: stat %s: %v", name, name, err), notFound: true}
			}
			return "", &commandError{text: fmt.Sprintf("exec: %q: %v", name, err)}
		}
		return name, nil
	}
	var search string
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			search = v
		}
	}
	for _, dir := range strings.Split(search, ":") {
		if dir == "" {
			dir = "."
		}
		if p := path.Join(dir, name); executable(p) == nil {
			if !strings.Contains(p, "/") {
				p = "./" + p
			}
			return p, nil
		}
	}
	return "", &commandError{text: fmt.Sprintf("exec: %q: executable file not found in $PATH", name), notFound: true}
}

func executable(p string) error {
	var st unix.Stat_t
	if err := unix.Stat(p, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return errors.New("is a directory")
	}
	return unix.Faccessat(unix.AT_FDCWD, p, unix.X_OK, unix.AT_EACCESS)
}

// defaultSignals undoes what was inherited: a shell that started moss in the background has interrupts ignored, and
// the container's command must not.
func defaultSignals() {
	type sigaction struct {
		handler  uintptr
		flags    uint64
		restorer uintptr
		mask     uint64
	}
	var dfl sigaction
	for sig := uintptr(1); sig <= 64; sig++ {
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&dfl)), 0, 8, 0, 0)
	}
	var none uint64
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, 2 /* SIG_SETMASK */, uintptr(unsafe.Pointer(&none)), 0, 8, 0, 0)
}
