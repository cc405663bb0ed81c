package fuseoverlay

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The tests run in namespaces of their own, as the monitor does: the test program starts itself again, once with a
// single id, and once with a range of them, for the tests whose names begin with TestRange.
const stage = "FUSEOVERLAY_TEST_STAGE"

func TestMain(m *testing.M) {
	switch os.Args[0] {
	case "moss-probe":
		ProbeMain()
	case "use":
		os.Exit(useMain(os.Args[1:]))
	case "enter": // the ids are mapped by now, or soon: the parent says when
		io.Copy(io.Discard, os.Stdin)
		err := syscall.Exec("/proc/self/exe", append([]string{"inside"}, os.Args[1:]...), os.Environ())
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if os.Getenv(stage) != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			fmt.Fprintln(os.Stderr, "make the mounts private:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	code := enter(os.Args[1:], "single", []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}})
	if code == 0 {
		code = enterRange(os.Args[1:])
	}
	os.Exit(code)
}

func enter(args []string, name string, uids, gids []syscall.SysProcIDMap) int {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), stage+"="+name)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, UidMappings: uids, GidMappings: gids, Pdeathsig: unix.SIGKILL}
	return exitCode(cmd.Run())
}

func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// enterRange maps 0 to the caller and 1.. to its subordinate ids.
func enterRange(args []string) int {
	for _, a := range args {
		if strings.HasPrefix(a, "-test.bench=") && a != "-test.bench=" {
			return 0
		}
	}
	if os.Getuid() == 0 {
		m := []syscall.SysProcIDMap{{HostID: 0, Size: 1}, {ContainerID: 1, HostID: 200000, Size: 65536}}
		return enter(args, "range", m, m)
	}
	uid, okU := subRange("/etc/subuid")
	gid, okG := subRange("/etc/subgid")
	if !okU || !okG {
		fmt.Println("not run: tests with a range of ids: no subordinate ids for this user")
		return 0
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{"enter"}, args...)
	cmd.Env = append(os.Environ(), stage+"=range")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	runtime.LockOSThread() // the signal comes when the thread dies that made the child
	mapped, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return exitCode(err)
	}
	for _, m := range [][]string{
		append([]string{"newuidmap", fmt.Sprint(cmd.Process.Pid), "0", fmt.Sprint(os.Getuid()), "1", "1"}, uid...),
		append([]string{"newgidmap", fmt.Sprint(cmd.Process.Pid), "0", fmt.Sprint(os.Getgid()), "1", "1"}, gid...),
	} {
		if out, err := exec.Command(m[0], m[1:]...).CombinedOutput(); err != nil {
			fmt.Printf("not run: tests with a range of ids: %s: %v %s\n", m[0], err, out)
			cmd.Process.Kill()
			cmd.Wait()
			return 0
		}
	}
	mapped.Close()
	return exitCode(cmd.Wait())
}

func subRange(path string) ([]string, bool) {
	u, err := user.Current()
	if err != nil {
		return nil, false
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if p := strings.Split(lines.Text(), ":"); len(p) == 3 && (p[0] == u.Username || p[0] == u.Uid) {
			return p[1:], true
		}
	}
	return nil, false
}

func needStage(t testing.TB, want string) {
	t.Helper()
	if have := os.Getenv(stage); have != want {
		t.Skipf("runs with a %s of ids, this is %s", want, have)
	}
}

// use runs a step in another process: what maps or executes a file of the mount must not be what serves it.
func use(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{"use"}, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
	return string(out)
}

func useMain(args []string) int {
	switch args[0] {
	case "exec":
		fmt.Println(syscall.Exec(args[1], []string{"use", "echo", "executed"}, nil))
		return 1
	case "echo":
		fmt.Print(args[1])
	case "mmap":
		f, err := os.Open(args[1])
		if err != nil {
			fmt.Println(err)
			return 1
		}
		fi, _ := f.Stat()
		b, err := unix.Mmap(int(f.Fd()), 0, int(fi.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		os.Stdout.Write(b)
	}
	return 0
}
