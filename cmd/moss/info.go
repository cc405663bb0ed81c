package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/system"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/moss-run/moss/fuseoverlay"
	"github.com/moss-run/moss/lifecycle"
)

func newInfoCommand(a *app) *cobra.Command {
	var text string
	cmd := &cobra.Command{
		Use:                   "info [OPTIONS]",
		Short:                 "Display what moss keeps, and what it runs on",
		Example:               "  moss info --format '{{.DockerRootDir}}'",
		Args:                  noArguments,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			info, err := a.info(cmd.Context())
			if err != nil {
				return err
			}
			if text != "" {
				return a.printOne(text, info)
			}
			return a.printInfo(info)
		},
	}
	cmd.Flags().StringVarP(&text, "format", "f", "", "Format output: 'json' or a Go template")
	return cmd
}

// info fills docker's fields where they mean something here.
func (a *app) info(ctx context.Context) (system.Info, error) {
	eng, err := a.engine()
	if err != nil {
		return system.Info{}, err
	}
	containers, err := eng.List(ctx, lifecycle.ListOptions{All: true})
	if err != nil {
		return system.Info{}, engineError(err)
	}
	store, err := a.images()
	if err != nil {
		return system.Info{}, err
	}
	images, err := store.List()
	if err != nil {
		return system.Info{}, engineError(err)
	}
	host, _ := os.Hostname()
	i := system.Info{
		Containers: len(containers), Images: len(images), Driver: "moss",
		DriverStatus:  [][2]string{{"Backing Filesystem", fuseoverlay.FileSystem(existing(eng.Root()))}},
		SystemTime:    time.Now().Format(time.RFC3339Nano),
		LoggingDriver: "json-file", CgroupDriver: "none", CgroupVersion: cgroupVersion(), KernelVersion: kernelRelease(),
		OperatingSystem: operatingSystem(), OSType: runtime.GOOS, Architecture: machine(), NCPU: runtime.NumCPU(), MemTotal: memory(),
		IndexServerAddress: "https://index.docker.io/v1/", DockerRootDir: eng.Root(), Name: host, ServerVersion: version,
		HTTPProxy: os.Getenv("HTTP_PROXY"), HTTPSProxy: os.Getenv("HTTPS_PROXY"), NoProxy: os.Getenv("NO_PROXY"),
		SecurityOptions: []string{"name=seccomp,profile=builtin", "name=userns"},
		Plugins:         system.PluginsInfo{Volume: []string{"local"}, Network: []string{"bridge", "host", "none"}, Log: []string{"json-file"}},
		Runtimes:        map[string]system.RuntimeWithStatus{"moss": {}}, DefaultRuntime: "moss",
	}
	if os.Geteuid() != 0 {
		i.SecurityOptions = append(i.SecurityOptions, "name=rootless")
	}
	for _, c := range containers {
		switch c.State {
		case container.StateRunning:
			i.ContainersRunning++
		case container.StatePaused:
			i.ContainersPaused++
		default:
			i.ContainersStopped++
		}
	}
	return i, nil
}

func (a *app) printInfo(i system.Info) error {
	var b strings.Builder
	fmt.Fprintf(&b, "moss:\n Version:    %s\n Daemon:     none\n\n", i.ServerVersion)
	line := func(indent int, key string, value any) {
		fmt.Fprintf(&b, "%*s%s: %v\n", indent, "", key, value)
	}
	line(0, "Containers", i.Containers)
	line(1, "Running", i.ContainersRunning)
	line(1, "Paused", i.ContainersPaused)
	line(1, "Stopped", i.ContainersStopped)
	line(0, "Images", i.Images)
	line(0, "Storage Driver", i.Driver)
	for _, kv := range i.DriverStatus {
		line(1, kv[0], kv[1])
	}
	line(0, "Logging Driver", i.LoggingDriver)
	line(0, "Cgroup Driver", i.CgroupDriver)
	line(0, "Cgroup Version", i.CgroupVersion)
	line(0, "Networks", strings.Join(i.Plugins.Network, " "))
	b.WriteString("Security Options:\n")
	for _, o := range i.SecurityOptions {
		name, rest, _ := strings.Cut(strings.TrimPrefix(o, "name="), ",")
		fmt.Fprintf(&b, " %s\n", name)
		if key, value, ok := strings.Cut(rest, "="); ok {
			line(2, strings.ToUpper(key[:1])+key[1:], value)
		}
	}
	line(0, "Kernel Version", i.KernelVersion)
	line(0, "Operating System", i.OperatingSystem)
	line(0, "OSType", i.OSType)
	line(0, "Architecture", i.Architecture)
	line(0, "CPUs", i.NCPU)
	line(0, "Total Memory", units.BytesSize(float64(i.MemTotal)))
	line(0, "Name", i.Name)
	line(0, "Root Dir", i.DockerRootDir)
	_, err := fmt.Fprint(a.stdout, b.String())
	return err
}

// existing is path, or the folder nearest to it that is there.
func existing(path string) string {
	for path != "/" && path != "." {
		if _, err := os.Lstat(path); err == nil {
			break
		}
		path = filepath.Dir(path)
	}
	return path
}

func cgroupVersion() string {
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &st); err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		return "2"
	}
	return "1"
}

// machine is the name of the processor as uname(2) gives it, as docker prints it: x86_64, aarch64.
func machine() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return runtime.GOARCH
	}
	return unix.ByteSliceToString(u.Machine[:])
}

func memory() int64 {
	var s unix.Sysinfo_t
	if err := unix.Sysinfo(&s); err != nil {
		return 0
	}
	return int64(s.Totalram) * int64(s.Unit)
}

// operatingSystem is the pretty name of os-release(5).
func operatingSystem() string {
	for _, file := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for _, l := range strings.Split(string(b), "\n") {
			if v, ok := strings.CutPrefix(l, "PRETTY_NAME="); ok {
				return strings.Trim(v, `"'`)
			}
		}
	}
	return "Linux"
}
