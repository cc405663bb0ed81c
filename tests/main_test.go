package tests

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// shared is what all stories have in common.
var shared struct {
	moss     string            // the binary
	tmp      string            // short, because the path of a socket may not be long
	cache    string            // what tests/setup.sh made
	program  string            // this test's own binary, which is also the programs of programs_test.go
	registry string            // host:port of the registry
	faults   string            // host:port of the server whose registries lie, fail and hang, by path
	tls      string            // host:port of a registry with a certificate that nobody vouches for
	private  string            // host:port of a registry that wants a password
	images   map[string]string // what could not be made, with the reason
}

func TestMain(m *testing.M) {
	// These are programs for stories, which run as processes of their own: testscript starts this binary again.
	testscript.Main(runner{m}, map[string]func(){
		"serve-http": serveHTTP,
		"serve-dns":  serveDNS,
		"echo-udp":   echoUDP,
		"descriptor": withDescriptor,
		"fetch":      fetch,
		"reach":      reach,
		"ask-udp":    askUDP,
		"look-up":    lookUp,
	})
}

type runner struct{ m *testing.M }

func (r runner) Run() int {
	flag.Parse() // -short says which images are made
	if err := start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		stopRegistry()
		// What a container's other users left in a volume is not ours to remove.
		_ = os.RemoveAll(shared.tmp)
	}()
	return r.m.Run()
}

func start() error {
	bin := os.Getenv("MOSS_BIN")
	if bin == "" {
		bin = "../bin/moss"
	}
	var err error
	if shared.moss, err = filepath.Abs(bin); err != nil {
		return err
	}
	if _, err := os.Stat(shared.moss); err != nil {
		return fmt.Errorf("%w: build it with `make`, or name it by MOSS_BIN", err)
	}
	if shared.cache = os.Getenv("MOSS_TEST_CACHE"); shared.cache == "" {
		shared.cache = "/var/cache/moss-test"
	}
	if shared.program, err = os.Executable(); err != nil {
		return err
	}
	if shared.tmp, err = os.MkdirTemp("", "m"); err != nil {
		return err
	}
	if err := startRegistry(); err != nil {
		return err
	}
	startFaults()
	return pushImages()
}

// limit is the time that one story has.
const limit = 3 * time.Minute

func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for n, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			tell(t, file, filepath.Join(shared.tmp, "r"+strconv.Itoa(n)))
		})
	}
}

// tell runs one story. All its processes have the runtime folder in their environment: one that is there when the last
// container has been removed was left behind, and that is a failure like any other.
func tell(t *testing.T, file, run string) {
	late := time.AfterFunc(limit, func() {
		t.Errorf("the story takes longer than %s: it is ended", limit)
		for _, p := range processesWith(run) {
			_ = p.Kill()
		}
	})
	defer late.Stop()
	testscript.RunT(story{t}, testscript.Params{
		Files:       []string{file},
		WorkdirRoot: shared.tmp,
		Cmds:        commands,
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Getuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, "home")
			for _, d := range []string{run, home} {
				if err := os.Mkdir(d, 0o700); err != nil {
					return err
				}
			}
			e.Values["t"] = e.T()
			e.Setenv("PATH", filepath.Dir(shared.moss)+":"+e.Getenv("PATH")+":/usr/sbin:/sbin")
			e.Setenv("HOME", home)
			e.Setenv("XDG_RUNTIME_DIR", run)
			e.Setenv("STORY", run) // the mark of a story's processes, which it does not change
			e.Setenv("STORE", filepath.Join(home, ".local/share/moss"))
			e.Setenv("REG", shared.registry)
			e.Setenv("FAULTS", shared.faults)
			e.Setenv("TLSREG", shared.tls)
			e.Setenv("PRIVREG", shared.private)
			e.Setenv("CACHE", shared.cache)
			e.Setenv("PROGRAM", shared.program) // for containers: what it does, its name decides
			e.Setenv("TERM", "xterm")
			e.Setenv("SHELL", "/bin/sh")
			for _, image := range []string{"busybox", "debian", "shapes", "settings"} {
				e.Setenv(image, shared.registry+"/library/"+image)
			}
			env := append([]string{}, e.Vars...)
			e.Defer(func() { removeContainers(env) })
			return nil
		},
	})
	var left []*os.Process
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if left = processesWith(run); len(left) == 0 {
			return
		}
	}
	for _, p := range left {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.Pid))
		t.Errorf("left behind: process %d: %.300s", p.Pid, strings.ReplaceAll(string(line), "\x00", " "))
		_ = p.Kill()
	}
}

// processesWith finds the processes that have a story's mark in their environment.
func processesWith(run string) []*os.Process {
	var found []*os.Process
	all, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, f := range all {
		b, err := os.ReadFile(f)
		if err != nil || !strings.Contains("\x00"+string(b), "\x00STORY="+run+"\x00") {
			continue
		}
		pid, _ := strconv.Atoi(strings.Split(f, "/")[2])
		if p, err := os.FindProcess(pid); err == nil {
			found = append(found, p)
		}
	}
	return found
}

// story lets testscript, which makes tests of its own of the files that it is given, work in the test that there is.
type story struct{ *testing.T }

func (s story) Run(_ string, f func(t testscript.T)) { f(s) }
func (s story) Parallel()                            {}
func (s story) Verbose() bool                        { return testing.Verbose() }

// removeContainers ends what a story left running.
func removeContainers(env []string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	moss := func(args ...string) string {
		cmd := exec.CommandContext(ctx, shared.moss, args...)
		cmd.Env = env
		out, _ := cmd.Output()
		return string(out)
	}
	if ids := strings.Fields(moss("ps", "-aq", "--no-trunc")); len(ids) > 0 {
		moss(append([]string{"rm", "-f", "-v"}, ids...)...)
	}
}
