package lifecycle

import (
	"fmt"
	"os"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/moss-run/moss/userns"
)

// defaultPath is what docker gives a container whose image sets no PATH.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// What docker hides of /proc and /sys, and what it shows read-only, in a container that is not privileged
// (moby: daemon/pkg/oci/defaults.go).
var (
	maskedPaths = []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// buildSpec turns docker's description of a container into the OCI runtime spec that package userns executes.
// rootPath is where its root file system is mounted; etc maps files of /etc to the host files bound over them.
func buildSpec(r *Record, rootPath string, ids userns.Mapping, etc map[string]string) (*specs.Spec, error) {
	h, c := r.HostConfig, r.Config
	s := &specs.Spec{
		Version:  specs.Version,
		Root:     &specs.Root{Path: rootPath, Readonly: h.ReadonlyRootfs},
		Hostname: c.Hostname, Domainname: c.Domainname,
		Annotations: h.Annotations,
	}
	oom := h.OomScoreAdj
	s.Process = &specs.Process{
		Terminal: c.Tty,
		User:     specs.User{Username: c.User},
		Args:     r.commandLine(),
		Env:      environment(c),
		Cwd:      c.WorkingDir,
	}
	if oom != 0 {
		s.Process.OOMScoreAdj = &oom
	}
	if s.Process.Cwd == "" {
		s.Process.Cwd = "/"
	}
	for _, u := range h.Ulimits {
		s.Process.Rlimits = append(s.Process.Rlimits, specs.POSIXRlimit{
			Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: uint64(u.Soft), Hard: uint64(u.Hard)})
	}

	caps, err := capabilities(h)
	if err != nil {
		return nil, err
	}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}

	s.Linux = &specs.Linux{
		UIDMappings: ids.InnerUIDs, GIDMappings: ids.InnerGIDs,
		Namespaces: []specs.LinuxNamespace{
			{Type: specs.UserNamespace}, {Type: specs.MountNamespace}, {Type: specs.PIDNamespace},
			{Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.CgroupNamespace},
		},
		Sysctl: map[string]string{},
	}
	if !h.NetworkMode.IsHost() {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace})
		// docker lets every user of a container bind low ports: its namespace's ports are nobody else's.
		s.Linux.Sysctl["net.ipv4.ip_unprivileged_port_start"] = "0"
	}
	for k, v := range h.Sysctls {
		if h.NetworkMode.IsHost() && strings.HasPrefix(k, "net.") {
			return nil, failure(errdefs.ErrInvalidArgument, "sysctl %q: not allowed with host network", k)
		}
		s.Linux.Sysctl[k] = v
	}
	if !h.Privileged {
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = maskedPaths, readonlyPaths
	}
	if h.MaskedPaths != nil {
		s.Linux.MaskedPaths = h.MaskedPaths
	}
	if h.ReadonlyPaths != nil {
		s.Linux.ReadonlyPaths = h.ReadonlyPaths
	}

	if s.Mounts, err = mounts(r, etc); err != nil {
		return nil, err
	}
	if err := securityOptions(s, h); err != nil {
		return nil, err
	}
	return s, nil
}

// environment is docker's: PATH, HOSTNAME and TERM come first, and the container's own settings override them. HOME is
// added by the init, which reads the container's passwd.
func environment(c *container.Config) []string {
	env := []string{defaultPath, "HOSTNAME=" + c.Hostname}
	if c.Tty {
		env = append(env, "TERM=xterm")
	}
	for _, kv := range c.Env {
		name, _, hasValue := strings.Cut(kv, "=")
		i := slices.IndexFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
		switch {
		case !hasValue && i >= 0: // a bare name takes the variable away
			env = slices.Delete(env, i, i+1)
		case !hasValue:
		case i >= 0:
			env[i] = kv
		default:
			env = append(env, kv)
		}
	}
	return env
}

// mounts lists a container's mounts, a parent before what lies in it.
func mounts(r *Record, etc map[string]string) ([]specs.Mount, error) {
	h := r.HostConfig
	sysMode := "ro"
	if h.Privileged {
		sysMode = "rw"
	}
	shm := h.ShmSize
	if shm == 0 {
		shm = 64 << 20
	}
	all := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", sysMode}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{sysMode, "nosuid", "noexec", "nodev"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(shm, 10)}},
	}
	if h.Privileged {
		all = append(all, hostDevices()...)
	}
	system := len(all)
	for _, dst := range sortedKeys(etc) {
		all = append(all, specs.Mount{Destination: dst, Type: "bind", Source: etc[dst], Options: []string{"rbind", "rprivate"}})
	}
	for _, dst := range sortedKeys(h.Tmpfs) {
		all = append(all, specs.Mount{Destination: path.Clean(dst), Type: "tmpfs", Source: "tmpfs", Options: tmpfsOptions(h.Tmpfs[dst])})
	}
	for _, m := range r.Mounts {
		switch m.Type {
		case mount.TypeTmpfs:
			all = append(all, specs.Mount{Destination: m.Destination, Type: "tmpfs", Source: "tmpfs", Options: mountTmpfsOptions(h, m)})
		default:
			opts := []string{"rbind", "rprivate"}
			if m.Propagation != "" {
				opts[1] = string(m.Propagation)
			}
			if nonRecursive(h, m.Destination) {
				opts[0] = "bind"
			}
			if !m.RW {
				opts = append(opts, "ro")
			}
			all = append(all, specs.Mount{Destination: m.Destination, Type: "bind", Source: m.Source, Options: opts})
		}
	}
	// The user's own mount takes the place of ours at the same destination.
	asked := map[string]bool{}
	for _, m := range all[system:] {
		asked[m.Destination] = true
	}
	kept := all[:0:0]
	for i, m := range all {
		if i < system && asked[m.Destination] {
			continue
		}
		kept = append(kept, m)
	}
	sort.SliceStable(kept, func(i, j int) bool { return depth(kept[i].Destination) < depth(kept[j].Destination) })
	return kept, nil
}

func depth(p string) int {
	if p == "/" {
		return 0
	}
	return strings.Count(path.Clean(p), "/")
}

func nonRecursive(h *container.HostConfig, dst string) bool {
	for _, m := range h.Mounts {
		if path.Clean(m.Target) == dst {
			return m.BindOptions != nil && m.BindOptions.NonRecursive
		}
	}
	return false
}

// tmpfsOptions are docker's defaults with the user's own put over them.
func tmpfsOptions(user string) []string {
	opts := []string{"noexec", "nosuid", "nodev"}
	opposite := map[string]string{"exec": "noexec", "suid": "nosuid", "dev": "nodev"}
	for _, o := range strings.Split(user, ",") {
		if o == "" {
			continue
		}
		if no, ok := opposite[o]; ok {
			opts = slices.DeleteFunc(opts, func(have string) bool { return have == no })
		}
		if !slices.Contains(opts, o) {
			opts = append(opts, o)
		}
	}
	return opts
}

func mountTmpfsOptions(h *container.HostConfig, m container.MountPoint) []string {
	opts := []string{"noexec", "nosuid", "nodev"}
	if !m.RW {
		opts = append(opts, "ro")
	}
	for _, mt := range h.Mounts {
		if path.Clean(mt.Target) != m.Destination || mt.TmpfsOptions == nil {
			continue
		}
		if n := mt.TmpfsOptions.SizeBytes; n > 0 {
			opts = append(opts, "size="+strconv.FormatInt(n, 10))
		}
		if mode := mt.TmpfsOptions.Mode; mode != 0 {
			opts = append(opts, fmt.Sprintf("mode=%o", uint32(mode)))
		}
		for _, kv := range mt.TmpfsOptions.Options {
			opts = slices.DeleteFunc(opts, func(have string) bool { return have == "no"+kv[0] })
			opts = append(opts, strings.Join(kv, "="))
		}
	}
	return opts
}

// hostDevices binds the device nodes of the host's /dev that the caller may open at all: what --privileged can mean in
// a user namespace, where no new node can be made.
func hostDevices() []specs.Mount {
	own := []string{"null", "zero", "full", "random", "urandom", "tty", "console", "ptmx"} // a container has these already
	entries, _ := os.ReadDir("/dev")
	var ms []specs.Mount
	for _, en := range entries {
		if en.Type()&os.ModeDevice == 0 || slices.Contains(own, en.Name()) || strings.HasPrefix(en.Name(), "tty") {
			continue
		}
		p := "/dev/" + en.Name()
		if f, err := os.OpenFile(p, os.O_RDWR|unix.O_NONBLOCK, 0); err != nil {
			continue
		} else {
			f.Close()
		}
		ms = append(ms, specs.Mount{Destination: p, Type: "bind", Source: p, Options: []string{"bind", "rprivate", "nosuid", "noexec"}})
	}
	return ms
}

// securityOptions applies --security-opt and the default seccomp profile.
func securityOptions(s *specs.Spec, h *container.HostConfig) error {
	profile := "builtin"
	for _, o := range h.SecurityOpt {
		k, v, ok := strings.Cut(o, "=")
		if !ok {
			k, v, ok = strings.Cut(o, ":")
		}
		switch {
		case k == "no-new-privileges":
			s.Process.NoNewPrivileges = !ok || v == "true"
		case k == "seccomp" && ok:
			profile = v
		default:
			return failure(errdefs.ErrInvalidArgument, "--security-opt %s is not supported by moss yet", k)
		}
	}
	if h.Privileged && profile == "builtin" || profile == "unconfined" {
		return nil
	}
	var err error
	if profile == "builtin" || profile == "" {
		s.Linux.Seccomp, err = seccomp.GetDefaultProfile(s)
	} else {
		s.Linux.Seccomp, err = seccomp.LoadProfile(profile, s)
	}
	if err != nil {
		return failure(errdefs.ErrInvalidArgument, "seccomp profile: %w", err)
	}
	return nil
}
