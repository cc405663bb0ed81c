package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"

	"github.com/moss-run/moss/fuseoverlay"
)

// nearest is the folder itself or, before the first pull, what it will be made in.
func nearest(path string) string {
	for path != "/" && path != "." && !exists(path) {
		path = filepath.Dir(path)
	}
	return path
}

const moveStore = "export MOSS_ROOT=/a/folder/on/a/local/disk"

// checkStore writes a file below the store, with an attribute such as the writable layer keeps its notes in.
func checkStore(_ context.Context, o Options) Check {
	dir := nearest(o.Root)
	kind := fuseoverlay.FileSystem(dir)
	f, err := os.CreateTemp(dir, ".moss-doctor-")
	if err != nil {
		return Check{Verdict: Fail, Found: fmt.Sprintf("%s (%s) cannot be written: %v", dir, kind, err),
			Cost: "nothing can be pulled or run", Remedy: moveStore}
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := unix.Fsetxattr(int(f.Fd()), "user.moss.doctor", []byte("1"), 0); err != nil {
		return Check{Verdict: Fail, Found: fmt.Sprintf("%s lies on %s, which has no user attributes: %v", o.Root, kind, err),
			Cost: "no container can have a writable layer there", Remedy: moveStore}
	}
	found := fmt.Sprintf("%s lies on %s, with user attributes", o.Root, kind)
	switch kind {
	case "nfs", "lustre", "ceph", "beegfs", "gpfs", "afs", "cifs", "smb2":
		return Check{Verdict: Warn, Found: found, Cost: "a network file system: containers write slowly there, and locks may not be seen from other hosts", Remedy: moveStore}
	case "tmpfs":
		return Check{Verdict: Warn, Found: found, Cost: "images and containers are kept in memory, and are gone after a restart", Remedy: moveStore}
	}
	return Check{Verdict: OK, Found: found}
}

// Room for a handful of images: below it a pull is likely to end in mid-way.
const (
	lowSpace  = 1 << 30
	lowInodes = 1000
)

func checkSpace(_ context.Context, o Options) Check {
	dir := nearest(o.Root)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Check{Verdict: Warn, Found: fmt.Sprintf("%s: %v", dir, err), Cost: "unknown", Remedy: "df " + quote(dir)}
	}
	free := st.Bavail * uint64(st.Bsize)
	c := Check{Verdict: OK, Found: units.BytesSize(float64(free)) + " free"}
	if st.Files > 0 { // btrfs and others have no fixed number
		c.Found += fmt.Sprintf(", %d files free", st.Ffree)
	}
	c.Found += " at " + dir
	if free < lowSpace || st.Files > 0 && st.Ffree < lowInodes {
		c.Verdict, c.Cost = Warn, "pulls and containers may find the disk full"
		c.Remedy = "moss container prune; moss images   (then moss rmi what is not needed)"
	}
	return c
}

func checkOverlay(ctx context.Context, o Options) Check {
	dir := nearest(o.Root)
	// What it stands on has a check and a remedy of its own: moving the store would not help.
	const cost = "no container can run with its files there"
	if err := cloneUserNamespace(); err != nil {
		return Check{Verdict: Fail, Found: "not tried: a user namespace cannot be made", Cost: cost, Remedy: "see user-namespaces"}
	}
	if device("/dev/fuse", "fuse", cost).Verdict != OK {
		return Check{Verdict: Fail, Found: "not tried: /dev/fuse cannot be opened", Cost: cost, Remedy: "see fuse"}
	}
	err := o.Overlay(ctx, dir)
	if err == nil {
		return Check{Verdict: OK, Found: "the kernel's overlay works in a user namespace, on a FUSE image, with its upper in " + dir}
	}
	return Check{Verdict: Fail, Found: fmt.Sprintf("no writable layer on %s (%s): %v", dir, fuseoverlay.FileSystem(dir), err),
		Cost: cost, Remedy: moveStore + "   (on ext4, xfs, btrfs or tmpfs; Linux 5.11 or later)"}
}

// maxRunDir leaves room for a container's socket in the 107 bytes that a socket's path may have.
const maxRunDir = 107 - len("/0123456789abcdef01234567/monitor.sock")

func checkRuntimeFolder(_ context.Context, o Options) Check {
	const mend = "export XDG_RUNTIME_DIR=/run/user/$(id -u)   (sudo loginctl enable-linger $USER makes it and keeps it)"
	x := os.Getenv("XDG_RUNTIME_DIR")
	dir, err := o.RunDir()
	if err != nil {
		return Check{Verdict: Fail, Found: err.Error(), Cost: "no container can run", Remedy: mend}
	}
	if len(dir) > maxRunDir {
		return Check{Verdict: Fail, Found: fmt.Sprintf("the path %s is too long for sockets", dir), Cost: "no container can run", Remedy: mend}
	}
	c := Check{Verdict: Warn, Cost: "sockets are kept in /tmp, where a clean-up by age may take them from under long-running containers", Remedy: mend}
	if x == "" {
		c.Found = "XDG_RUNTIME_DIR is not set; " + dir + " is used"
		return c
	}
	if !within(dir, x) {
		c.Found = fmt.Sprintf("XDG_RUNTIME_DIR=%s cannot be used; %s is", x, dir)
		return c
	}
	fi, err := os.Stat(x)
	if err != nil {
		return Check{Verdict: Fail, Found: err.Error(), Cost: "no container can run", Remedy: mend}
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return Check{Verdict: Warn, Found: fmt.Sprintf("XDG_RUNTIME_DIR=%s belongs to user %d", x, st.Uid),
			Cost: "its owner can take containers' sockets away; as after su or sudo without a login", Remedy: mend}
	}
	if perm := fi.Mode().Perm(); perm&0o077 != 0 {
		return Check{Verdict: Warn, Found: fmt.Sprintf("XDG_RUNTIME_DIR=%s has mode %04o", x, perm), Cost: "others can look into it", Remedy: "chmod 0700 " + quote(x)}
	}
	return Check{Verdict: OK, Found: dir}
}

func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// quote makes a path safe to paste into a shell.
func quote(s string) string {
	if strings.Trim(s, "/.-_+:@%,=") != "" && !strings.ContainsAny(s, " \t\n'\"\\$`&|;<>()*?[]{}~#!") {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// checkCgroups looks for a part of the cgroup v2 tree that the caller may make groups in.
func checkCgroups(context.Context, Options) Check {
	const cost = "limits such as --memory, --cpus and --pids-limit cannot be enforced; containers run"
	const delegate = `sudo mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\nDelegate=cpu cpuset io memory pids\n' | sudo tee /etc/systemd/system/user@.service.d/delegate.conf && sudo systemctl daemon-reload   (then log in anew)`
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &st); err != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
		return Check{Verdict: Warn, Found: "/sys/fs/cgroup is not cgroup v2 alone", Cost: cost, Remedy: "boot with systemd.unified_cgroup_hierarchy=1"}
	}
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return Check{Verdict: Warn, Found: err.Error(), Cost: cost, Remedy: "mount /proc"}
	}
	path := ""
	for _, l := range strings.Split(string(b), "\n") {
		if p, ok := strings.CutPrefix(l, "0::"); ok {
			path = p
		}
	}
	dir := filepath.Join("/sys/fs/cgroup", path)
	// A group is delegated when its own process list and its children's switch may be written (cgroups(7)).
	for _, f := range []string{"", "cgroup.procs", "cgroup.subtree_control"} {
		if err := unix.Access(filepath.Join(dir, f), unix.W_OK); err != nil {
			return Check{Verdict: Warn, Found: fmt.Sprintf("%s is not delegated to %s: %v", dir, userName(), err), Cost: cost, Remedy: delegate}
		}
	}
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return Check{Verdict: Warn, Found: err.Error(), Cost: cost, Remedy: delegate}
	}
	var missing []string
	for _, c := range []string{"cpu", "memory", "pids"} {
		if !strings.Contains(" "+strings.TrimSpace(string(have))+" ", " "+c+" ") {
			missing = append(missing, c)
		}
	}
	if len(missing) > 0 {
		return Check{Verdict: Warn, Found: dir + " is delegated without " + strings.Join(missing, ", "), Cost: cost, Remedy: delegate}
	}
	return Check{Verdict: OK, Found: dir + " is delegated, with " + strings.TrimSpace(string(have))}
}
