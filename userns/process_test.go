package userns

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// ranged is a mapping with many ids, or the test is skipped.
func ranged(t *testing.T) Mapping {
	t.Helper()
	m, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	if m.Kind == Alone {
		t.Skip("this user has one id only: " + m.Reason)
	}
	return m
}

// Entry points that drop root (gosu, setpriv, su-exec) make the kernel forget the parent-death signal.
func TestACommandThatChangedItsUserEndsWithItsMonitor(t *testing.T) {
	m := ranged(t)
	mark := fmt.Sprint(9000000 + os.Getpid())
	s := testSpec(rootfs(t), "start-stop-daemon", "-S", "-c", "2:3", "-x", "/bin/sleep", "--", mark)
	o := order{Die: true, Spec: s}
	ran := make(chan bool)
	go func() { // that it has run at all, before it is gone
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if processWith(mark) {
				ran <- true
				return
			}
		}
		ran <- false
	}()
	runSpec(t, m, o)
	if !<-ran {
		t.Fatal("the command did not run")
	}
	for end := time.Now().Add(5 * time.Second); processWith(mark); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the container outlived its monitor")
		}
	}
}

func TestNoHelperIsLeftBehind(t *testing.T) {
	m, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range []*specs.Spec{testSpec(rootfs(t), "true"), testSpec(rootfs(t), "nosuch")} {
		runSpec(t, m, order{Spec: spec})
	}
	left := func() (n int) {
		all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, f := range all {
			var st syscall.Stat_t
			if b, err := os.ReadFile(f); err == nil && string(b) == "test-init\x00guard\x00" && syscall.Stat(f, &st) == nil && int(st.Uid) == os.Getuid() {
				n++
			}
		}
		return n
	}
	for end := time.Now().Add(5 * time.Second); left() > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d guards are left", left())
		}
	}
}

func TestAUserStartsWhereOnlyRootMayEnterAndOpensItsStreams(t *testing.T) {
	m := ranged(t)
	for _, init := range []bool{false, true} {
		s := testSpec(rootfs(t), "sh", "-c", "pwd; umask; echo out > /dev/stdout; cat /dev/stdin; id -G")
		s.Process.Cwd = "/root/made"
		s.Process.User = specs.User{UID: 2, GID: 3, AdditionalGids: []uint32{77}}
		if err := os.MkdirAll(filepath.Join(s.Root.Path, "root"), 0o700); err != nil {
			t.Fatal(err)
		}
		if m.Kind == Root { // the container's root, on the host's file system
			if err := os.Chown(filepath.Join(s.Root.Path, "root"), int(m.OuterUIDs[1].HostID), int(m.OuterGIDs[1].HostID)); err != nil {
				t.Fatal(err)
			}
		}
		old := syscall.Umask(0o077)
		res := runSpec(t, m, order{Spec: s, Init: init, In: "in\n"})
		syscall.Umask(old)
		if res.Out != "/root/made\n0022\nout\nin\n3 77\n" || res.Err != "" {
			t.Fatalf("init %v: %+v", init, res)
		}
	}
}

// A user's umask of 077 must not reach the folders that are made on the way to a mount.
func TestMountPointsAreMadeForAll(t *testing.T) {
	eachMapping(t, func(t *testing.T, m Mapping) {
		s := testSpec(rootfs(t), "stat", "-c", "%a %u:%g", "/a", "/a/b", "/run")
		if m.Kind == Root {
			if err := os.Chmod(s.Root.Path, 0o777); err != nil {
				t.Fatal(err)
			}
		}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/a/b/c", Type: "tmpfs", Source: "tmpfs"},
			specs.Mount{Destination: "/run", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=1770", "size=64k"}})
		old := syscall.Umask(0o077)
		res := runSpec(t, m, order{Spec: s})
		syscall.Umask(old)
		if res.Out != "755 0:0\n755 0:0\n1770 0:0\n" || res.Err != "" {
			t.Fatalf("%+v", res)
		}
	})
}

func TestLimits(t *testing.T) {
	m, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	s := testSpec(rootfs(t), "sh", "-c", "ulimit -n; ulimit -Hn; ulimit -c")
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 99, Hard: 100}, {Type: "RLIMIT_CORE"}}
	if res := runSpec(t, m, order{Spec: s}); res.Out != "99\n100\n0\n" {
		t.Errorf("%+v", res)
	}
	var now syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &now); err != nil {
		t.Fatal(err)
	}
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 5, Hard: now.Max + 1}}
	if res := runSpec(t, m, order{Spec: s}); !strings.Contains(res.Err, fmt.Sprintf("set ulimit nofile=5:%d: operation not permitted", now.Max+1)) {
		t.Errorf("%+v", res)
	}
}

func TestDockersProfileIsInForceWithAndWithoutNoNewPrivileges(t *testing.T) {
	eachMapping(t, func(t *testing.T, m Mapping) {
		for _, nnp := range []bool{false, true} {
			for _, init := range []bool{false, true} {
				s := testSpec(rootfs(t), "sh", "-c", "grep -E 'Seccomp:|NoNewPrivs' /proc/self/status; unshare -U true && echo made")
				var err error
				if s.Linux.Seccomp, err = seccomp.GetDefaultProfile(s); err != nil {
					t.Fatal(err)
				}
				s.Process.NoNewPrivileges = nnp
				res := runSpec(t, m, order{Spec: s, Init: init})
				want := "NoNewPrivs:\t0\nSeccomp:\t2\n"
				if nnp {
					want = "NoNewPrivs:\t1\nSeccomp:\t2\n"
				}
				if !strings.HasPrefix(res.Out, want) || strings.Contains(res.Out, "made") || res.Err != "" {
					t.Errorf("nnp %v init %v: %+v", nnp, init, res)
				}
			}
		}
	})
}

// The reaper stays in the container's sight: it must hold no more than the container, and its program must not be
// writable (CVE-2019-5736), even for a container that may trace it.
func TestTheReaperIsNotWorthTakingOver(t *testing.T) {
	eachMapping(t, func(t *testing.T, m Mapping) {
		s := testSpec(rootfs(t), "sh", "-c", "grep -hE 'CapEff|CapPrm' /proc/1/task/*/status; readlink /proc/1/exe; echo x >> /proc/1/exe")
		caps := append(s.Process.Capabilities.Bounding, "CAP_SYS_PTRACE")
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
		res := runSpec(t, m, order{Spec: s, Init: true})
		for _, l := range strings.Split(res.Out, "\n") {
			if strings.HasPrefix(l, "Cap") && !strings.HasSuffix(l, "\t00000000000800e3") {
				t.Errorf("the reaper has %s", l)
			}
		}
		if !strings.Contains(res.Out, "/memfd:init") || !strings.Contains(res.Out, "can't create /proc/1/exe") || res.Code == 0 {
			t.Errorf("%+v", res)
		}
	})
}

func TestMountsBelowProc(t *testing.T) {
	eachMapping(t, func(t *testing.T, m Mapping) {
		root := rootfs(t)
		from := filepath.Join(filepath.Dir(root), "from")
		if err := os.WriteFile(from, []byte("mine\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		s := testSpec(root, "cat", "/proc/uptime")
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/proc/uptime", Type: "bind", Source: from, Options: []string{"rbind", "ro"}})
		if res := runSpec(t, m, order{Spec: s}); res.Out != "mine\n" {
			t.Fatalf("%+v", res)
		}
	})
}

func TestWhatCannotBeDoneIsSaid(t *testing.T) {
	m, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(s *specs.Spec)
		want   string
	}{
		"a bind source that is missing": {func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "bind", Source: "/no/such", Options: []string{"rbind"}})
		}, "mount /x: bind source path does not exist: /no/such"},
		"a folder on a file": {func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/etc/plain", Type: "tmpfs", Source: "tmpfs"})
		}, "a folder cannot be mounted on a file"},
		"an unknown file system option": {func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "tmpfs", Source: "tmpfs", Options: []string{"sparkle"}})
		}, "option sparkle of tmpfs"},
		"a sysctl of the host":  {func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"vm.swappiness": "1"} }, "sysctl vm.swappiness=1"},
		"a sysctl that is none": {func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"../../etc/plain": "1"} }, "not a name"},
		"hooks":                 {func(s *specs.Spec) { s.Hooks = &specs.Hooks{} }, "hooks"},
		"a namespace of another kind": {func(s *specs.Spec) {
			s.Linux.Namespaces[2].Path = "/proc/self/ns/pid"
		}, "pid namespace: one that is there already cannot be joined"},
		"a namespace out of reach": {func(s *specs.Spec) {
			s.Linux.Namespaces[5].Path = "/proc/self/ns/net"
		}, "join network namespace /proc/self/ns/net: operation not permitted"},
		"a profile with an unknown action": {func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: "SCMP_ACT_DANCE"}
		}, "seccomp action SCMP_ACT_DANCE is not supported"},
		"a working folder that is a file": {func(s *specs.Spec) { s.Process.Cwd = "/etc/plain" }, "/etc/plain"},
	} {
		s := testSpec(rootfs(t), "true")
		c.change(s)
		if res := runSpec(t, m, order{Spec: s}); !strings.Contains(res.Err, c.want) {
			t.Errorf("%s: %+v", name, res)
		}
	}
}

func TestAProgramOfAnotherFormat(t *testing.T) {
	m, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{"\x7fELF no": "exec /bad: exec format error", "#!/no/such\n": "exec /bad: no such file or directory (its interpreter is missing)"} {
		for _, init := range []bool{false, true} {
			s := testSpec(rootfs(t), "/bad")
			if err := os.WriteFile(filepath.Join(s.Root.Path, "bad"), []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
			if res := runSpec(t, m, order{Spec: s, Init: init}); res.Err != want || res.NoExec == res.NotFound {
				t.Errorf("%q init %v: %+v", text, init, res)
			}
		}
	}
}
