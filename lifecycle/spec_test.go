package lifecycle

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/moss-run/moss/userns"
)

func specOf(t *testing.T, change func(c *container.Config, h *container.HostConfig)) (*specs.Spec, error) {
	t.Helper()
	c := &container.Config{Cmd: []string{"x"}, Hostname: "host"}
	h := &container.HostConfig{NetworkMode: "bridge"}
	change(c, h)
	r := &Record{Config: c, HostConfig: h}
	e := newEngine(t)
	if _, err := e.resolveMounts(r); err != nil {
		return nil, err
	}
	one := []specs.LinuxIDMapping{{Size: 1}}
	return buildSpec(r, "/root", userns.Mapping{InnerUIDs: one, InnerGIDs: one}, map[string]string{"/etc/hosts": "/h"})
}

func TestTheEnvironmentIsDockers(t *testing.T) {
	s, err := specOf(t, func(c *container.Config, h *container.HostConfig) {
		c.Tty, c.Env = true, []string{"A=b", "PATH=/x", "HOSTNAME=other", "TERM"}
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"PATH=/x", "HOSTNAME=other", "A=b"}; !slices.Equal(s.Process.Env, want) {
		t.Errorf("%q", s.Process.Env)
	}
}

func TestCapabilitiesAreAddedAndDroppedAsDockerDoes(t *testing.T) {
	for _, c := range []struct {
		add, drop []string
		privilege bool
		want      []string // beside nothing else, when it begins with "only"
		not       []string
	}{
		{nil, nil, false, []string{"CAP_CHOWN", "CAP_NET_RAW"}, []string{"CAP_SYS_ADMIN"}},
		{[]string{"sys_admin"}, []string{"CHOWN"}, false, []string{"CAP_SYS_ADMIN", "CAP_KILL"}, []string{"CAP_CHOWN"}},
		{[]string{"NET_RAW"}, []string{"ALL"}, false, []string{"only", "CAP_NET_RAW"}, nil},
		{[]string{"ALL"}, []string{"MKNOD"}, false, []string{"CAP_BPF"}, []string{"CAP_MKNOD"}},
		{nil, nil, true, []string{"CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"}, nil},
	} {
		got, err := capabilities(&container.HostConfig{CapAdd: c.add, CapDrop: c.drop, Privileged: c.privilege})
		if err != nil {
			t.Fatal(err)
		}
		if c.want[0] == "only" {
			if !slices.Equal(got, c.want[1:]) {
				t.Errorf("+%v -%v: %v", c.add, c.drop, got)
			}
			continue
		}
		for _, w := range c.want {
			if !slices.Contains(got, w) {
				t.Errorf("+%v -%v: %s is missing", c.add, c.drop, w)
			}
		}
		for _, n := range c.not {
			if slices.Contains(got, n) {
				t.Errorf("+%v -%v: %s is there", c.add, c.drop, n)
			}
		}
	}
	if _, err := capabilities(&container.HostConfig{CapAdd: []string{"NOSUCH"}}); err == nil || err.Error() != `invalid capability: "NOSUCH"` {
		t.Errorf("%v", err)
	}
}

func TestMountsComeParentsFirstAndTheUsersInPlaceOfOurs(t *testing.T) {
	dir := t.TempDir()
	s, err := specOf(t, func(c *container.Config, h *container.HostConfig) {
		h.Binds = []string{dir + ":/dev/shm:ro", dir + ":/a/b/c", "vol:/a/b"}
		h.Tmpfs = map[string]string{"/run": "size=1m,exec"}
		h.Mounts = []mount.Mount{{Type: mount.TypeTmpfs, Target: "/a", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 4096, Mode: 0o700}}}
		c.Volumes = map[string]struct{}{"/anon": {}, "/a/b/": {}}
	})
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]specs.Mount{}
	var order []string
	for _, m := range s.Mounts {
		if _, twice := at[m.Destination]; twice {
			t.Errorf("%s is mounted twice", m.Destination)
		}
		at[m.Destination] = m
		order = append(order, m.Destination)
	}
	for _, pair := range [][2]string{{"/dev", "/dev/pts"}, {"/sys", "/sys/fs/cgroup"}, {"/a", "/a/b"}, {"/a/b", "/a/b/c"}, {"/dev", "/dev/shm"}} {
		if i, j := slices.Index(order, pair[0]), slices.Index(order, pair[1]); i < 0 || j < i {
			t.Errorf("%s (%d) does not come before %s (%d)", pair[0], i, pair[1], j)
		}
	}
	if m := at["/dev/shm"]; m.Type != "bind" || !slices.Contains(m.Options, "ro") {
		t.Errorf("/dev/shm: %+v", m)
	}
	if o := at["/run"].Options; slices.Contains(o, "noexec") || !slices.Contains(o, "size=1m") || !slices.Contains(o, "nosuid") {
		t.Errorf("/run: %v", o)
	}
	if o := at["/a"].Options; !slices.Contains(o, "size=4096") || !slices.Contains(o, "mode=700") {
		t.Errorf("/a: %v", o)
	}
	if at["/anon"].Type != "bind" || !strings.Contains(at["/anon"].Source, "/volumes/") {
		t.Errorf("/anon: %+v", at["/anon"])
	}
}

func TestWhatCannotBeObeyedIsRefused(t *testing.T) {
	e := newEngine(t)
	for name, h := range map[string]*container.HostConfig{
		"user network": {NetworkMode: "mine"}, "container network": {NetworkMode: "container:x"}, "pid": {PidMode: "host"},
		"restart": {RestartPolicy: container.RestartPolicy{Name: "always"}}, "userns": {UsernsMode: "host"}, "volumes-from": {VolumesFrom: []string{"x"}},
	} {
		_, err := e.Create(t.Context(), CreateOptions{Config: &container.Config{Cmd: []string{"x"}}, HostConfig: h})
		if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "not supported by moss yet") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := specOf(t, func(c *container.Config, h *container.HostConfig) { h.Binds = []string{"vv:/x", "ww:/x/"} }); err == nil || err.Error() != "Duplicate mount point: /x" {
		t.Errorf("%v", err)
	}
	if _, err := specOf(t, func(c *container.Config, h *container.HostConfig) { h.SecurityOpt = []string{"apparmor=x"} }); err == nil {
		t.Error("apparmor was swallowed")
	}
	if left, _ := e.ids(); len(left) != 0 {
		t.Errorf("refused creates left %v", left)
	}
}

func TestPrivilegedAndHostNetwork(t *testing.T) {
	s, err := specOf(t, func(c *container.Config, h *container.HostConfig) { h.Privileged, h.NetworkMode = true, "host" })
	if err != nil {
		t.Fatal(err)
	}
	if s.Linux.Seccomp != nil || len(s.Linux.MaskedPaths) > 0 {
		t.Error("privileged and still confined")
	}
	for _, n := range s.Linux.Namespaces {
		if n.Type == specs.NetworkNamespace {
			t.Error("a network namespace with --network host")
		}
	}
	if s, _ := specOf(t, func(*container.Config, *container.HostConfig) {}); s.Linux.Seccomp == nil || len(s.Linux.MaskedPaths) == 0 {
		t.Error("not confined by default")
	}
}

func TestTheHostsFile(t *testing.T) {
	r := &Record{Config: &container.Config{Hostname: "web", Domainname: "example"}, HostConfig: &container.HostConfig{ExtraHosts: []string{"db:10.0.0.9", "six:[::9]"}}}
	b, err := hostsFile(r, netip.MustParseAddr("10.0.2.100"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"127.0.0.1\tlocalhost\n", "10.0.0.9\tdb\n", "::9\tsix\n", "10.0.2.100\tweb.example web\n"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%q is missing from\n%s", want, b)
		}
	}
	r.HostConfig.ExtraHosts = []string{"x:host-gateway"}
	if _, err := hostsFile(r, netip.Addr{}); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("host-gateway: %v", err)
	}
}

func TestFilters(t *testing.T) {
	e := newEngine(t)
	one := made(t, e, "one", func(o *CreateOptions) {
		o.Config.Labels = map[string]string{"k": "v", "l": ""}
		o.HostConfig.PortBindings = network.PortMap{network.MustParsePort("80/tcp"): {{HostPort: "8080"}}}
	})
	two := made(t, e, "two", func(o *CreateOptions) { o.HostConfig.NetworkMode = "none"; o.HostConfig.Binds = []string{"vol:/v"} })
	for _, c := range []struct {
		filters map[string][]string
		want    []string
	}{
		{nil, []string{two, one}},
		{map[string][]string{"name": {"on"}}, []string{one}},
		{map[string][]string{"name": {"on", "^/two$"}}, []string{two, one}},
		{map[string][]string{"label": {"k=v", "l"}}, []string{one}},
		{map[string][]string{"label": {"k=w"}}, nil},
		{map[string][]string{"status": {"created"}}, []string{two, one}},
		{map[string][]string{"status": {"running"}}, nil},
		{map[string][]string{"network": {"none"}}, []string{two}},
		{map[string][]string{"volume": {"vol"}}, []string{two}},
		{map[string][]string{"volume": {"/v"}}, []string{two}},
		{map[string][]string{"publish": {"80"}}, []string{one}},
		{map[string][]string{"publish": {"70-90/udp"}}, nil},
		{map[string][]string{"before": {"two"}}, []string{one}},
		{map[string][]string{"since": {"one"}}, []string{two}},
		{map[string][]string{"ancestor": {"img:latest"}}, []string{two, one}},
		{map[string][]string{"id": {one[:8]}}, []string{one}},
	} {
		list, err := e.List(t.Context(), ListOptions{All: true, Filters: c.filters})
		var got []string
		for _, s := range list {
			got = append(got, s.ID)
		}
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%v: %v %v, want %v", c.filters, got, err, c.want)
		}
	}
	for _, bad := range []map[string][]string{{"nosuch": {"x"}}, {"status": {"odd"}}, {"exited": {"x"}}, {"name": {"("}}} {
		if _, err := e.List(t.Context(), ListOptions{Filters: bad}); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestPruneRemovesWhatDoesNotRunAndTheAnonymousVolumesStay(t *testing.T) {
	e := newEngine(t)
	made(t, e, "aa", func(o *CreateOptions) { o.Config.Labels = map[string]string{"keep": "1"} })
	made(t, e, "bb", func(o *CreateOptions) { o.Config.Volumes = map[string]struct{}{"/data": {}} })
	rep, err := e.Prune(t.Context(), map[string][]string{"label!": {"keep=1"}})
	if err != nil || len(rep.ContainersDeleted) != 1 {
		t.Fatalf("%+v %v", rep, err)
	}
	if _, err := e.find("aa"); err != nil {
		t.Error(err)
	}
	if _, err := e.Prune(t.Context(), map[string][]string{"until": {"1h"}}); err != nil {
		t.Error(err)
	}
	if _, err := e.find("aa"); err != nil {
		t.Error("a container of this minute was pruned with until=1h")
	}
	if _, err := e.Prune(t.Context(), map[string][]string{"odd": {"x"}}); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Error(err)
	}
}

func TestPruneSweepsWhatKilledCommandsLeft(t *testing.T) {
	e := newEngine(t)
	made(t, e, "aa", nil)
	old := time.Now().Add(-2 * time.Hour)
	for _, n := range []string{".new-1", ".removing-2", ".new-fresh"} {
		if err := os.MkdirAll(filepath.Join(e.containers(), n, "upper"), 0o700); err != nil {
			t.Fatal(err)
		}
		if n != ".new-fresh" {
			os.Chtimes(filepath.Join(e.containers(), n), old, old)
		}
	}
	if _, err := e.Prune(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	left, _ := os.ReadDir(e.containers())
	if len(left) != 1 || left[0].Name() != ".new-fresh" {
		t.Errorf("%v", left)
	}
}

func TestAnonymousVolumesGoWithTheirContainerAndNamedOnesStay(t *testing.T) {
	e := newEngine(t)
	id := made(t, e, "aa", func(o *CreateOptions) {
		o.Config.Volumes = map[string]struct{}{"/data": {}}
		o.HostConfig.Binds = []string{"named:/n"}
	})
	rec, err := e.dir(id).ReadRecord()
	if err != nil || len(rec.Mounts) != 2 {
		t.Fatal(err, rec.Mounts)
	}
	if err := e.Remove(t.Context(), "aa", RemoveOptions{Volumes: true}); err != nil {
		t.Fatal(err)
	}
	made(t, e, "bb", func(o *CreateOptions) { o.HostConfig.Binds = []string{"named:/n"} })
	names := map[string]bool{}
	for _, m := range rec.Mounts {
		var v struct{ Name string }
		names[m.Name] = readJSON(e.volumeDir(m.Name)+"/volume.json", &v) == nil
	}
	if len(names) != 2 || !names["named"] {
		t.Errorf("%v", names)
	}
	for n, there := range names {
		if n != "named" && there {
			t.Errorf("anonymous volume %s is left", n)
		}
	}
}
