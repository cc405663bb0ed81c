package userns

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/moss-run/moss/userns/runinit"
)

// The test binary plays two more parts, by argv[0]: the monitor, which runs one spec, and the container's init.
func TestMain(m *testing.M) {
	switch os.Args[0] {
	case "test-monitor":
		os.Exit(testMonitor())
	case "test-init":
		runinit.Main()
	}
	os.Exit(m.Run())
}

// order is what a test wants run; outcome is how it went.
type order struct {
	Spec *specs.Spec
	Init bool
	Kill syscall.Signal // sent half a second after the start
	Die  bool           // the monitor kills itself half a second after the start
	Pty  string         // typed at the terminal
	In   string         // what stdin has

	Times int // only measured, this often
}

type outcome struct {
	Out      string
	Code     int
	Signal   int
	Err      string
	NotFound bool
	NoExec   bool

	Started, Ended []time.Duration
}

func testMonitor() int {
	var o order
	var res outcome
	err := AwaitOuter()
	if err == nil {
		err = json.NewDecoder(os.Stdin).Decode(&o)
	}
	if err == nil && o.Times > 0 {
		err = runTimes(o, &res)
	} else if err == nil {
		err = runOrder(o, &res)
	}
	if err != nil {
		res.Err = err.Error()
		res.NotFound, res.NoExec = errors.Is(err, ErrCommandNotFound), errors.Is(err, ErrCommandNotExecutable)
	}
	_ = json.NewEncoder(os.Stdout).Encode(res)
	return 0
}

func runOrder(o order, res *outcome) error {
	// A file system of the monitor's own, as the overlay would be.
	root := o.Spec.Root.Path
	if err := unix.Mount(root, root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	in, inw, err := os.Pipe()
	if err != nil {
		return err
	}
	_, _ = io.WriteString(inw, o.In)
	inw.Close()
	p, err := Start(context.Background(), RunConfig{Spec: o.Spec, Init: o.Init, HelperPath: "/proc/self/exe", HelperArgs: []string{"test-init"}, Stdin: in, Stdout: w, Stderr: w})
	w.Close()
	if err != nil {
		return err
	}
	if o.Kill != 0 || o.Die {
		time.AfterFunc(500*time.Millisecond, func() {
			if o.Die {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
			_ = p.Signal(o.Kill)
		})
	}
	var out bytes.Buffer
	if p.Console != nil {
		_ = p.Resize(24, 91)
		go func() { _, _ = io.WriteString(p.Console, o.Pty) }()
		_, _ = io.Copy(&out, p.Console)
	} else {
		_, _ = io.Copy(&out, r)
	}
	code, sig, err := p.Wait()
	res.Out, res.Code, res.Signal = out.String(), code, int(sig)
	return err
}

// rootfs makes a root with busybox in it.
func rootfs(t testing.TB) string {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox is not installed (package busybox-static)")
	}
	dir := t.TempDir()
	for p := dir; p != "/"; p = filepath.Dir(p) {
		_ = os.Chmod(p, 0o755)
		if filepath.Dir(p) == os.TempDir() {
			break
		}
	}
	root := filepath.Join(dir, "root")
	for _, d := range []string{"bin", "etc", "proc", "sys", "dev", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("bin/busybox", string(b), 0o755)
	write("etc/passwd", "root:x:0:0::/root:/bin/sh\nbin:x:2:3::/bin:/bin/sh\n", 0o644)
	write("etc/group", "root:x:0:\nsys:x:3:\nstaff:x:50:bin\n", 0o644)
	write("etc/plain", "text", 0o644)
	for _, n := range []string{"sh", "cat", "echo", "id", "ls", "sleep", "true", "hostname", "mount", "touch", "kill", "pwd", "stty", "readlink", "grep", "stat", "mkdir", "start-stop-daemon", "su", "unshare", "wc", "head"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", n)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func testSpec(root string, args ...string) *specs.Spec {
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETUID", "CAP_SETGID", "CAP_KILL"}
	s := &specs.Spec{
		Root: &specs.Root{Path: root}, Hostname: "inside",
		Process: &specs.Process{Args: args, Env: []string{"PATH=/bin"}, Cwd: "/", User: specs.User{Username: "0"},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}},
		Linux: &specs.Linux{MaskedPaths: []string{"/proc/kcore", "/proc/acpi"}, ReadonlyPaths: []string{"/proc/sys"}},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue"},
		},
	}
	for _, n := range []specs.LinuxNamespaceType{specs.UserNamespace, specs.MountNamespace, specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.NetworkNamespace, specs.CgroupNamespace} {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: n})
	}
	return s
}

func runSpec(t *testing.T, m Mapping, o order) outcome {
	t.Helper()
	o.Spec.Linux.UIDMappings, o.Spec.Linux.GIDMappings = m.InnerUIDs, m.InnerGIDs
	text, _ := json.Marshal(o)
	var out, errw bytes.Buffer
	cmd := &exec.Cmd{Path: "/proc/self/exe", Args: []string{"test-monitor"}, Stdin: bytes.NewReader(text), Stdout: &out, Stderr: &errw, Env: os.Environ()}
	if err := StartOuter(cmd, m); err != nil {
		t.Skipf("user namespaces do not work here: %v", err)
	}
	werr := cmd.Wait()
	var res outcome
	if err := json.Unmarshal(out.Bytes(), &res); err != nil && !o.Die {
		t.Fatalf("the monitor said %q %q (%v)", out.String(), errw.String(), werr)
	}
	return res
}

// eachMapping runs a test with every mapping that the machine has.
func eachMapping(t *testing.T, f func(t *testing.T, m Mapping)) {
	best, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	t.Run(string(best.Kind), func(t *testing.T) { f(t, best) })
	if best.Kind == Subordinate {
		alone := Mapping{Kind: Alone, OuterUIDs: one(os.Getuid()), OuterGIDs: one(os.Getgid()), InnerUIDs: one(0), InnerGIDs: one(0)}
		t.Run("alone", func(t *testing.T) { f(t, alone) })
	}
}

func TestACommandRunsAndItsExitCodeComesBack(t *testing.T) {
	eachMapping(t, func(t *testing.T, m Mapping) {
		root := rootfs(t)
		res := runSpec(t, m, order{Spec: testSpec(root, "sh", "-c", "echo $$ $(hostname) $(id -u); cat /proc/self/uid_map >&2; exit 7")})
		if res.Err != "" || res.Code != 7 || !strings.HasPrefix(res.Out, "1 inside 0\n") {
			t.Fatalf("%+v", res)
		}
	})
}

func TestTheInitReapsAndForwards(t *testing.T) {
	eachMapping(t, func(t *testing.T, m Mapping) {
		root := rootfs(t)
		res := runSpec(t, m, order{Init: true, Kill: syscall.SIGTERM, Spec: testSpec(root, "sh", "-c", "trap 'echo got it; exit 3' TERM; (sleep 0.01 &) ; while :; do sleep 0.1; done")})
		if res.Err != "" || res.Code != 3 || res.Out != "got it\n" {
			t.Fatalf("%+v", res)
		}
	})
}

func TestSignalDeathIsToldApart(t *testing.T) {
	eachMapping(t, func(t *testing.T, m Mapping) {
		res := runSpec(t, m, order{Kill: syscall.SIGKILL, Spec: testSpec(rootfs(t), "sleep", "60")})
		if res.Signal != int(syscall.SIGKILL) {
			t.Fatalf("%+v", res)
		}
	})
}

func TestTheContainerEndsWithItsMonitor(t *testing.T) {
	eachMapping(t, func(t *testing.T, m Mapping) {
		mark := fmt.Sprint(7000000 + os.Getpid()*10 + len(t.Name())%10)
		for _, init := range []bool{false, true} {
			runSpec(t, m, order{Die: true, Init: init, Spec: testSpec(rootfs(t), "sleep", mark)})
			for end := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
				if !processWith(mark) {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("the container's process outlived its monitor (init %v)", init)
				}
			}
		}
	})
}

func processWith(arg string) bool {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range all {
		if b, err := os.ReadFile(f); err == nil && strings.HasSuffix(string(b), "sleep\x00"+arg+"\x00") {
			return true
		}
	}
	return false
}

func TestWhatIsSeenInside(t *testing.T) {
	eachMapping(t, func(t *testing.T, m Mapping) {
		root := rootfs(t)
		s := testSpec(root, "sh", "-c", `
ls /proc/self/fd | grep -v 3 | grep -c .
ls -ld /dev/null /dev/pts/ptmx | grep -c ^c
cat /proc/kcore | grep -c .
echo x > /proc/sys/kernel/domainname
touch /dev/new /bind/file /robind/file
cat /bind/file
grep -E 'CapEff|CapBnd|CapAmb|Seccomp:|NoNewPrivs' /proc/self/status
mount | grep -c ' /bind '
touch /
`)
		bind := filepath.Join(filepath.Dir(root), "bind, with: signs")
		if err := os.Mkdir(bind, 0o777); err != nil {
			t.Fatal(err)
		}
		os.Chmod(bind, 0o777)
		s.Root.Readonly = true
		s.Process.NoNewPrivileges = true
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"swapon"}, Action: specs.ActErrno}}}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/bind", Type: "bind", Source: bind, Options: []string{"rbind"}},
			specs.Mount{Destination: "/robind", Type: "bind", Source: bind, Options: []string{"rbind", "ro"}})
		res := runSpec(t, m, order{Spec: s})
		for _, want := range []string{"CapEff:\t00000000000000e3", "CapBnd:\t00000000000000e3", "CapAmb:\t0000000000000000", "Seccomp:\t2", "NoNewPrivs:\t1",
			"can't create /proc/sys/kernel/domainname: Read-only file system", "/robind/file: Read-only file system", "touch: /: Read-only file system"} {
			if !strings.Contains(res.Out, want) {
				t.Errorf("%q is missing", want)
			}
		}
		if t.Failed() || res.Err != "" {
			t.Fatalf("%s\n%s", res.Out, res.Err)
		}
	})
}

func TestATerminal(t *testing.T) {
	eachMapping(t, func(t *testing.T, m Mapping) {
		for _, init := range []bool{false, true} {
			s := testSpec(rootfs(t), "sh", "-c", "read x; echo got $x; stty size; ls -l /proc/self/fd/0 /dev/console")
			s.Process.Terminal = true
			res := runSpec(t, m, order{Spec: s, Pty: "word\n", Init: init})
			if !strings.Contains(res.Out, "got word") || !strings.Contains(res.Out, "24 91") || !strings.Contains(res.Out, "/dev/pts/0") || res.Err != "" {
				t.Fatalf("%+v", res)
			}
		}
	})
}

func TestUsersAreFoundInTheContainersPasswd(t *testing.T) {
	m, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	if m.Kind == Alone {
		t.Skip("this user has one id only: " + m.Reason)
	}
	for _, c := range []struct{ user, want, err string }{
		{"bin", "uid=2(bin) gid=3(sys) groups=3(sys),50(staff)|/bin\n", ""},
		{"bin:0", "uid=2(bin) gid=0(root)", ""},
		{"1234", "uid=1234 gid=0(root)", ""},
		{"1234:55", "uid=1234 gid=55", ""},
		{"nosuch", "", "unable to find user nosuch: no matching entries in passwd file"},
		{"999999", "", "uid 999999 is not mapped in this container"},
	} {
		s := testSpec(rootfs(t), "sh", "-c", "echo \"$(id)|$HOME\"")
		s.Process.User.Username = c.user
		res := runSpec(t, m, order{Spec: s})
		if !strings.HasPrefix(res.Out, c.want) || !strings.Contains(res.Err, c.err) || (c.err == "") != (res.Err == "") {
			t.Errorf("%s: %+v", c.user, res)
		}
	}
}

func TestCommandsThatCannotBeExecuted(t *testing.T) {
	m, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		cmd              string
		notFound, noExec bool
		text             string
	}{
		{"nosuch", true, false, `exec: "nosuch": executable file not found in $PATH`},
		{"/bin/nosuch", true, false, `exec: "/bin/nosuch": stat /bin/nosuch: no such file or directory`},
		{"/etc/plain", false, true, `exec: "/etc/plain": permission denied`},
		{"/etc", false, true, `exec: "/etc": is a directory`},
	} {
		for _, init := range []bool{false, true} {
			res := runSpec(t, m, order{Spec: testSpec(rootfs(t), c.cmd), Init: init})
			if res.NotFound != c.notFound || res.NoExec != c.noExec || res.Err != c.text {
				t.Errorf("%s: %+v", c.cmd, res)
			}
		}
	}
}

func TestALinkInTheImageCannotMoveAMountOut(t *testing.T) {
	m, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	root := rootfs(t)
	outside := filepath.Join(filepath.Dir(root), "outside")
	os.Mkdir(outside, 0o777)
	if err := os.Symlink("../../../../../../../.."+outside, filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	s := testSpec(root, "sh", "-c", "touch /link/here; ls -R "+outside)
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/link", Type: "tmpfs", Source: "tmpfs"})
	res := runSpec(t, m, order{Spec: s})
	if left, _ := os.ReadDir(outside); len(left) != 0 {
		t.Fatalf("%v was made outside of the root; %+v", left, res)
	}
	os.Remove(filepath.Join(root, "proc"))
	os.Symlink("/tmp", filepath.Join(root, "proc"))
	if res := runSpec(t, m, order{Spec: testSpec(root, "true")}); res.Err == "" {
		t.Fatal("/proc was mounted through a link")
	}
}
