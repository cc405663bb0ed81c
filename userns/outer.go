package userns

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// outerEnv tells a process started by StartOuter on which descriptor it waits for its ids.
const outerEnv = "_MOSS_OUTER_FD"

// StartOuter starts cmd as id 0 of a new user namespace with m's outer ids, in a new mount namespace. cmd's own
// ExtraFiles keep their numbers, from 3 on. The process must call AwaitOuter before anything else. Errors name what
// forbids user namespaces, and the remedy.
func StartOuter(cmd *exec.Cmd, m Mapping) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	a := cmd.SysProcAttr
	a.Cloneflags |= syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	cmd.Env = append(cmd.Environ(), outerEnv+"="+strconv.Itoa(3+len(cmd.ExtraFiles)))
	cmd.ExtraFiles = append(cmd.ExtraFiles, r)
	if m.Kind == Subordinate {
		// The maps are written by setuid programs while the process runs already. It is nobody until then, and would
		// lose its capabilities when it is executed: ambient ones survive that (capabilities(7)).
		for c := range uintptr(lastCapability()) + 1 {
			a.AmbientCaps = append(a.AmbientCaps, c)
		}
	} else {
		a.UidMappings, a.GidMappings = sysMaps(m.OuterUIDs), sysMaps(m.OuterGIDs)
		a.GidMappingsEnableSetgroups = m.Kind == Root
	}
	if err := cmd.Start(); err != nil {
		return startError(err)
	}
	if m.Kind == Subordinate {
		if err := writeMaps(cmd.Process.Pid, m); err != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			return err
		}
	}
	if _, err = w.Write([]byte{1}); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return fmt.Errorf("tell the process that its ids are there: %w", err)
	}
	return nil
}

func sysMaps(maps []specs.LinuxIDMapping) []syscall.SysProcIDMap {
	var out []syscall.SysProcIDMap
	for _, m := range maps {
		out = append(out, syscall.SysProcIDMap{ContainerID: int(m.ContainerID), HostID: int(m.HostID), Size: int(m.Size)})
	}
	return out
}

// writeMaps has newuidmap and newgidmap write a process's maps, both at the same time.
func writeMaps(pid int, m Mapping) error {
	run := func(helper string, maps []specs.LinuxIDMapping) error {
		args := []string{strconv.Itoa(pid)}
		for _, r := range maps {
			args = append(args, fmt.Sprint(r.ContainerID), fmt.Sprint(r.HostID), fmt.Sprint(r.Size))
		}
		var errw bytes.Buffer
		cmd := exec.Command(helper, args...)
		cmd.Stderr = &errw
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w: %s; ask an administrator to check the line of this user in /etc/subuid and /etc/subgid, and that %s is setuid or has its file capability",
				helper, err, strings.TrimSpace(errw.String()), helper)
		}
		return nil
	}
	done := make(chan error, 1)
	go func() { done <- run("newgidmap", m.OuterGIDs) }()
	err := run("newuidmap", m.OuterUIDs)
	return errors.Join(err, <-done)
}

// AwaitOuter completes what StartOuter began, in the process that it started: it waits until the ids are there, and
// cuts the mount namespace off from the host's, which then sees nothing of what is mounted here.
func AwaitOuter() error {
	fd, err := strconv.Atoi(os.Getenv(outerEnv))
	if err != nil {
		return errors.New("this process is started by moss only")
	}
	os.Unsetenv(outerEnv)
	f := os.NewFile(uintptr(fd), "ids")
	defer f.Close()
	if n, err := f.Read(make([]byte, 1)); n != 1 {
		if err == io.EOF {
			err = errors.New("the starter has gone")
		}
		return fmt.Errorf("wait for ids: %w", err)
	}
	if os.Getuid() != 0 {
		return fmt.Errorf("the user namespace has no id 0: the map of process %d was not written", os.Getpid())
	}
	// Groups of the caller that are not mapped would be carried into the container. Where the caller is alone with its
	// id the kernel forbids to drop them; they show as nobody then, and give no more than the caller has.
	if err := syscall.Setgroups(nil); err != nil && !errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("drop supplementary groups: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return nil
}

// lastCapability is the highest that this kernel knows.
func lastCapability() int {
	b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if n, aerr := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && aerr == nil {
		return n
	}
	return unix.CAP_LAST_CAP
}

// startError explains a refused clone.
func startError(err error) error {
	switch {
	case !slices.ContainsFunc([]error{syscall.EPERM, syscall.EACCES, syscall.ENOSPC, syscall.EUSERS, syscall.EINVAL, syscall.ENOSYS},
		func(e error) bool { return errors.Is(err, e) }):
		return err
	case errors.Is(err, syscall.ENOSPC), readSysctl("/proc/sys/user/max_user_namespaces") == "0":
		return fmt.Errorf("make a user namespace: %w; an administrator can allow more of them with: sysctl -w user.max_user_namespaces=15000", err)
	case readSysctl("/proc/sys/kernel/unprivileged_userns_clone") == "0":
		return fmt.Errorf("make a user namespace: %w; an administrator can allow it with: sysctl -w kernel.unprivileged_userns_clone=1", err)
	case readSysctl("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
		return fmt.Errorf("make a user namespace: %w; AppArmor allows it only to programs with a profile; an administrator can allow it to all with: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0", err)
	}
	return fmt.Errorf("make a user namespace: %w; see moss doctor", err)
}

func readSysctl(path string) string {
	b, _ := os.ReadFile(path)
	return strings.TrimSpace(string(b))
}
