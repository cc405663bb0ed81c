package tests

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// commands are what stories can say beside testscript's own words.
var commands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"need":     cmdNeed,
	"exits":    cmdExits,
	"until":    cmdUntil,
	"freeport": cmdFreePort,
	"get":      cmdGet,
	"udp":      cmdUDP,
	"monitor":  cmdMonitor,
	"signal":   cmdSignal,
	"alive":    cmdAlive,
	"keep":     cmdKeep,
	"terminal": cmdTerminal,
	"sparse":   cmdSparse,
	"sleep":    cmdSleep,
}

// patience is how long a story waits for what must come.
const patience = 20 * time.Second

// need THING...: skips the story, with the reason, where one of them is not there.
func cmdNeed(ts *testscript.TestScript, neg bool, args []string) {
	t := ts.Value("t").(testscript.T)
	for _, thing := range args {
		if why := missing(thing); why != "" {
			t.Skip(why)
		}
	}
}

// missing says why a thing is not there, "" when it is.
func missing(thing string) string {
	opens := func(dev string) string {
		f, err := os.OpenFile(dev, os.O_RDWR, 0)
		if err != nil {
			return err.Error() + " (as root: chmod 666 " + dev + ")"
		}
		f.Close()
		return ""
	}
	switch thing {
	case "long":
		if testing.Short() {
			return "left out by -short"
		}
	case "fuse":
		return opens("/dev/fuse")
	case "container": // one of busybox, without a network
		if why := opens("/dev/fuse"); why != "" {
			return why
		}
		return shared.images["busybox"]
	case "network":
		return opens("/dev/net/tun")
	case "range":
		if os.Getuid() != 0 && !hasRange() {
			return "this user has no range in /etc/subuid, or newuidmap is not installed"
		}
	case "one-id":
		if os.Getuid() == 0 || hasRange() {
			return "this user has more ids than one"
		}
	case "real-registry":
		if !realRegistry() {
			return "docker-registry is not installed"
		}
	case "apt":
		if _, err := os.Stat(filepath.Join(shared.cache, "apt/Packages")); err != nil {
			return "there is no apt repository: make test as root makes one (" + err.Error() + ")"
		}
	case "programs": // those of programs_test.go, in containers
		if !static(shared.program) {
			return "the test binary is not static: build it with CGO_ENABLED=0"
		}
	default:
		if why, known := shared.images[thing]; known {
			return why
		}
		if _, err := exec.LookPath(thing); err != nil {
			return "there is no " + thing + " on this machine"
		}
	}
	return ""
}

func hasRange() bool {
	if _, err := exec.LookPath("newuidmap"); err != nil {
		return false
	}
	b, _ := os.ReadFile("/etc/subuid")
	name := os.Getenv("USER")
	for _, l := range strings.Split(string(b), "\n") {
		who, _, _ := strings.Cut(l, ":")
		if who != "" && (who == name || who == strconv.Itoa(os.Getuid())) {
			return true
		}
	}
	return false
}

// exits CODE PROGRAM...: runs it; this code, and no other. Its output is for stdout and stderr.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARG...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit code %d, and not %s", got, args[0])
	}
}

// until REGEXP PROGRAM...: runs it again and again until its output has it.
func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until REGEXP PROGRAM [ARG...]")
	}
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		cmd := exec.Command(args[1], args[2:]...)
		if args[1] == "moss" {
			cmd.Path = shared.moss
			cmd.Err = nil
		}
		cmd.Dir = ts.MkAbs(".")
		cmd.Env = environ(ts)
		out, _ := cmd.CombinedOutput()
		if re.Match(out) {
			fmt.Fprintf(ts.Stdout(), "%s", out)
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("never came: %s\nthe last output was:\n%s", args[0], out)
		}
	}
}

// environ is the story's environment as it is now, of the variables that matter to moss.
func environ(ts *testscript.TestScript) []string {
	var env []string
	for _, k := range []string{"PATH", "HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "MOSS_ROOT", "DOCKER_CONFIG", "TERM", "SHELL", "TMPDIR"} {
		if v := ts.Getenv(k); v != "" {
			env = append(env, k+"="+v)
		}
	}
	return env
}

// freeport NAME...: puts a free port of 127.0.0.1 into each variable.
func cmdFreePort(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range args {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		ts.Setenv(name, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
		l.Close()
	}
}

// get URL: what an HTTP server says; with ! nothing must answer.
func cmdGet(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: get URL")
	}
	c := http.Client{Timeout: 5 * time.Second}
	var last error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		resp, err := c.Get(args[0])
		if err == nil {
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if neg {
				ts.Fatalf("%s answers: %s", args[0], b)
			}
			fmt.Fprintf(ts.Stdout(), "%s", b)
			return
		}
		last = err
		if neg {
			return
		}
	}
	ts.Fatalf("%v", last)
}

// udp HOST:PORT TEXT: sends it until an answer comes.
func cmdUDP(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: udp HOST:PORT TEXT")
	}
	for end := time.Now().Add(patience); time.Now().Before(end); {
		c, err := net.Dial("udp", args[0])
		ts.Check(err)
		_, _ = c.Write([]byte(args[1]))
		_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		b := make([]byte, 1500)
		n, err := c.Read(b)
		c.Close()
		if err == nil {
			fmt.Fprintf(ts.Stdout(), "%s", b[:n])
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	ts.Fatalf("no answer from %s", args[0])
}

// monitor CONTAINER VARIABLE: the process id of a running container's monitor.
func cmdMonitor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: monitor CONTAINER VARIABLE")
	}
	cmd := exec.Command(shared.moss, "inspect", "-f", "{{.State.Pid}}", args[0])
	cmd.Env = environ(ts)
	out, err := cmd.Output()
	ts.Check(err)
	for pid := strings.TrimSpace(string(out)); pid != "" && pid != "0" && pid != "1"; pid = parent(pid) {
		b, err := os.ReadFile("/proc/" + pid + "/cmdline")
		ts.Check(err)
		if strings.HasPrefix(string(b), "moss-monitor\x00") {
			ts.Setenv(args[1], pid)
			return
		}
	}
	ts.Fatalf("container %s has no monitor above its process %s", args[0], out)
}

func parent(pid string) string {
	b, _ := os.ReadFile("/proc/" + pid + "/status")
	for _, l := range strings.Split(string(b), "\n") {
		if v, ok := strings.CutPrefix(l, "PPid:"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

var signals = map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL, "HUP": syscall.SIGHUP,
	"USR1": syscall.SIGUSR1, "QUIT": syscall.SIGQUIT, "STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT}

// signal NAME PID|last: sends a signal to a process; last is the background command that was started last.
func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 || signals[args[0]] == 0 {
		ts.Fatalf("usage: signal NAME PID|last")
	}
	var pid int
	if args[1] == "last" {
		all := ts.BackgroundCmds()
		if len(all) == 0 {
			ts.Fatalf("nothing runs in the background")
		}
		pid = all[len(all)-1].Process.Pid
	} else {
		var err error
		pid, err = strconv.Atoi(args[1])
		ts.Check(err)
	}
	ts.Check(syscall.Kill(pid, signals[args[0]]))
}

// alive PID; with ! it must end in time.
func cmdAlive(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: alive PID")
	}
	runs := func() bool {
		b, err := os.ReadFile("/proc/" + args[0] + "/stat")
		if err != nil {
			return false
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		return !strings.HasPrefix(rest, "Z")
	}
	if !neg {
		if !runs() {
			ts.Fatalf("process %s is gone", args[0])
		}
		return
	}
	for end := time.Now().Add(patience); runs(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			ts.Fatalf("process %s still runs", args[0])
		}
	}
}

// keep VARIABLE: the last command's output, without the newline at its end, becomes a variable.
func cmdKeep(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: keep VARIABLE")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

// sparse FILE MAX: the file takes at most so many MiB of disk.
func cmdSparse(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: sparse FOLDER MIB")
	}
	most, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	var sum int64
	ts.Check(filepath.Walk(ts.MkAbs(args[0]), func(_ string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		sum += fi.Sys().(*syscall.Stat_t).Blocks * 512
		return nil
	}))
	if sum > most<<20 {
		ts.Fatalf("%s takes %d MiB of disk, more than %d", args[0], sum>>20, most)
	}
}

// sleep DURATION, where there is nothing to wait for: something must not happen.
func cmdSleep(ts *testscript.TestScript, neg bool, args []string) {
	d, err := time.ParseDuration(args[0])
	ts.Check(err)
	time.Sleep(d)
}
