package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/moss-run/moss/userns"
)

// cloneUserNamespace makes a user namespace, and in it the other kinds that a container has. A namespace alone proves
// little: where AppArmor restricts them they can be made, but hold no capabilities. The child is told to execute what
// does not exist, so that ENOENT says that everything before it went well.
func cloneUserNamespace() error {
	self := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
	group := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	pid, err := syscall.ForkExec("/proc/self/no-such-program", []string{"probe"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{
		Cloneflags:   syscall.CLONE_NEWUSER,
		Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWNET,
		UidMappings:  self, GidMappings: group,
	}})
	if err == nil {
		_, _ = syscall.Wait4(pid, nil, 0, nil)
	}
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	return err
}

// userNamespaceSwitches are what administrators turn user namespaces off with.
var userNamespaceSwitches = []struct {
	file    string
	blocks  func(value int) bool
	setting string
}{
	{"/proc/sys/user/max_user_namespaces", func(v int) bool { return v < 2 }, "user.max_user_namespaces=28633"},
	{"/proc/sys/kernel/unprivileged_userns_clone", func(v int) bool { return v == 0 }, "kernel.unprivileged_userns_clone=1"},
	{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", func(v int) bool { return v == 1 }, "kernel.apparmor_restrict_unprivileged_userns=0"},
}

func checkUserNamespaces(context.Context, Options) Check {
	err := cloneUserNamespace()
	if err == nil {
		return Check{Verdict: OK, Found: "a user namespace can be made, and mount, pid, ipc, uts and network namespaces in it"}
	}
	c := Check{Verdict: Fail, Found: fmt.Sprintf("a user namespace cannot be made: %v", err), Cost: "no container can run"}
	for _, s := range userNamespaceSwitches {
		if v, ok := readInt(s.file); ok && s.blocks(v) {
			name, _, _ := strings.Cut(s.setting, "=")
			c.Found += fmt.Sprintf("; %s is %d", name, v)
			c.Remedy = fmt.Sprintf("echo %s | sudo tee /etc/sysctl.d/90-user-namespaces.conf && sudo sysctl --system", s.setting)
			return c
		}
	}
	switch {
	case errors.Is(err, syscall.ENOSPC):
		c.Remedy = "echo user.max_user_namespaces=28633 | sudo tee /etc/sysctl.d/90-user-namespaces.conf && sudo sysctl --system"
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENOSYS):
		c.Remedy = "boot a kernel with CONFIG_USER_NS=y"
	default:
		c.Remedy = "if this is a container: start it with user namespaces allowed (docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined); else ask what forbids unshare(2): unshare -Ur true"
	}
	return c
}

func checkSubordinateIDs(context.Context, Options) Check {
	m, err := userns.Detect()
	if err != nil {
		return Check{Verdict: Fail, Found: err.Error(), Cost: "no container can run", Remedy: "mount /proc"}
	}
	ids := func(n uint64) string { return strconv.FormatUint(n, 10) + " ids: " + m.String() }
	var uids, gids uint64
	for _, r := range m.InnerUIDs {
		uids += uint64(r.Size)
	}
	for _, r := range m.InnerGIDs {
		gids += uint64(r.Size)
	}
	const cost = "images whose files belong to several users do not work in full: chown and apt-get fail in the container"
	if m.Kind == userns.Root {
		return Check{Verdict: OK, Found: ids(uids)}
	}
	if os.Geteuid() == 0 { // of a namespace with a single id: nothing that /etc/subuid says can be used
		return Check{Verdict: Warn, Found: m.Reason, Cost: cost, Remedy: "start what moss runs in (a container, unshare) with a range of ids, or run moss as an ordinary user outside of it"}
	}
	if have := min(subordinate("/etc/subuid"), subordinate("/etc/subgid")); have == 0 {
		start := nextRange()
		return Check{Verdict: Warn, Found: "no range for " + userName() + " in /etc/subuid and /etc/subgid", Cost: cost,
			Remedy: fmt.Sprintf("sudo usermod --add-subuids %d-%d --add-subgids %d-%d %s", start, start+65535, start, start+65535, userName())}
	} else if have < 65535 {
		start := nextRange()
		return Check{Verdict: Warn, Found: fmt.Sprintf("only %d subordinate ids", have), Cost: "ids above it, such as nobody (65534), do not exist in containers",
			Remedy: fmt.Sprintf("sudo usermod --add-subuids %d-%d --add-subgids %d-%d %s", start, start+65535, start, start+65535, userName())}
	}
	if m.Kind == userns.Alone {
		return Check{Verdict: Warn, Found: "there is a range, which cannot be used: " + m.Reason, Cost: cost, Remedy: "see id-map-helpers"}
	}
	return Check{Verdict: OK, Found: ids(min(uids, gids))}
}

// subordinate counts the caller's ids in a file of subuid(5)'s form.
func subordinate(file string) (n uint64) {
	for _, l := range subIDLines(file) {
		if l.owner == userName() || l.owner == strconv.Itoa(os.Getuid()) {
			n += l.count
		}
	}
	return n
}

// nextRange is the first multiple of 65536 behind all ranges that are given out.
func nextRange() uint64 {
	end := uint64(100000)
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		for _, l := range subIDLines(file) {
			end = max(end, l.start+l.count)
		}
	}
	return end
}

type subIDLine struct {
	owner        string
	start, count uint64
}

func subIDLines(file string) (lines []subIDLine) {
	b, _ := os.ReadFile(file)
	for _, text := range strings.Split(string(b), "\n") {
		f := strings.Split(strings.TrimSpace(text), ":")
		if len(f) != 3 {
			continue
		}
		start, err1 := strconv.ParseUint(f[1], 10, 32)
		count, err2 := strconv.ParseUint(f[2], 10, 32)
		if err1 == nil && err2 == nil {
			lines = append(lines, subIDLine{f[0], start, count})
		}
	}
	return lines
}

func checkIDMapHelpers(context.Context, Options) Check {
	const cost = "containers have one id only, even where there is a subordinate range"
	const install = "sudo apt-get install uidmap   (Fedora, RHEL, SUSE, Arch: the shadow or shadow-utils package)"
	if os.Geteuid() == 0 {
		return Check{Verdict: OK, Found: "not needed: root writes id maps itself"}
	}
	var found []string
	for _, h := range []struct {
		name, setCap string
		capability   uint
	}{{"newuidmap", "cap_setuid", unix.CAP_SETUID}, {"newgidmap", "cap_setgid", unix.CAP_SETGID}} {
		path, err := exec.LookPath(h.name)
		if err != nil {
			return Check{Verdict: Warn, Found: h.name + " is not in PATH", Cost: cost, Remedy: install}
		}
		how := privilege(path, h.capability)
		if how == "" {
			return Check{Verdict: Warn, Found: path + " has neither the capability that it needs nor the setuid bit", Cost: cost,
				Remedy: fmt.Sprintf("sudo setcap %s+ep %s", h.setCap, path)}
		}
		var fs unix.Statfs_t
		if unix.Statfs(path, &fs) == nil && fs.Flags&unix.ST_NOSUID != 0 {
			return Check{Verdict: Warn, Found: path + " lies on a file system mounted nosuid", Cost: cost, Remedy: "install it on one that is not: " + install}
		}
		found = append(found, path+" ("+how+")")
	}
	if v, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err == nil && v == 1 {
		return Check{Verdict: Warn, Found: "this session has no_new_privs set, so newuidmap gets no privilege", Cost: cost,
			Remedy: "start moss outside of what set it (a systemd unit with NoNewPrivileges=, a sandbox)"}
	}
	return Check{Verdict: OK, Found: strings.Join(found, ", ")}
}

// privilege says how a program gets its privilege: "setuid", "file capability", or "" for not at all.
func privilege(path string, capability uint) string {
	if fi, err := os.Stat(path); err == nil && fi.Mode()&os.ModeSetuid != 0 {
		if st, ok := fi.Sys().(*syscall.Stat_t); ok && st.Uid == 0 {
			return "setuid"
		}
	}
	// struct vfs_cap_data of capabilities(7): a magic word, then the permitted set, little endian.
	var b [24]byte
	n, err := unix.Getxattr(path, "security.capability", b[:])
	if err == nil && n >= 8 && b[4+capability/8]&(1<<(capability%8)) != 0 {
		return "file capability"
	}
	return ""
}

func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return strconv.Itoa(os.Getuid())
}

func readInt(file string) (int, bool) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	v, err := strconv.Atoi(string(bytes.TrimSpace(b)))
	return v, err == nil
}
