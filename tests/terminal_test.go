package tests

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"
)

// cmdTerminal runs a program at a terminal, and does there what a file says, a line each:
//
//	expect REGEXP     wait until this has been printed, after what was expected before
//	send "text\r"     type, with Go's escapes: "\x10\x11" is ctrl-p ctrl-q
//	size ROWS COLS    change the window
//	signal NAME       send the program a signal
//	exit CODE         wait for its end
//
//	terminal FILE PROGRAM [ARG...]
func cmdTerminal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: terminal FILE PROGRAM [ARG...]")
	}
	cmd := exec.Command(args[1], args[2:]...)
	if args[1] == "moss" {
		cmd = exec.Command(shared.moss, args[2:]...)
	}
	cmd.Dir, cmd.Env = ts.MkAbs("."), environ(ts)
	t, err := startTerminal(cmd)
	ts.Check(err)
	defer t.close()
	for _, line := range strings.Split(ts.ReadFile(args[0]), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := t.do(line); err != nil {
			ts.Fatalf("%s: %v\non the terminal:\n%s", line, err, t.all())
		}
	}
	fmt.Fprint(ts.Stdout(), t.all())
}

// terminal is a program at a terminal of its own.
type terminal struct {
	cmd   *exec.Cmd
	tty   *os.File
	ended chan error

	mu   sync.Mutex // guards what follows
	text []byte     // all that was printed
	seen int        // up to where it was expected
	more chan struct{}
}

func startTerminal(cmd *exec.Cmd) (*terminal, error) {
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 80})
	if err != nil {
		return nil, err
	}
	t := &terminal{cmd: cmd, tty: tty, ended: make(chan error, 1), more: make(chan struct{}, 1)}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := tty.Read(b)
			t.mu.Lock()
			t.text = append(t.text, b[:n]...)
			t.mu.Unlock()
			select {
			case t.more <- struct{}{}:
			default:
			}
			if err != nil {
				t.ended <- cmd.Wait()
				return
			}
		}
	}()
	return t, nil
}

func (t *terminal) all() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}

func (t *terminal) do(line string) error {
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "expect":
		re, err := regexp.Compile(rest)
		if err != nil {
			return err
		}
		late := time.After(patience)
		for {
			t.mu.Lock()
			at := re.FindIndex(t.text[t.seen:])
			if at != nil {
				t.seen += at[1]
			}
			t.mu.Unlock()
			if at != nil {
				return nil
			}
			select {
			case <-t.more:
			case <-late:
				return errors.New("it never came")
			}
		}
	case "send":
		text, err := strconv.Unquote(rest)
		if err != nil {
			return err
		}
		_, err = t.tty.WriteString(text)
		return err
	case "size":
		var w pty.Winsize
		if _, err := fmt.Sscan(rest, &w.Rows, &w.Cols); err != nil {
			return err
		}
		return pty.Setsize(t.tty, &w)
	case "signal":
		return t.cmd.Process.Signal(signals[rest])
	case "exit":
		select {
		case err := <-t.ended:
			t.ended <- err
			code := 0
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				code = exit.ExitCode()
			} else if err != nil {
				return err
			}
			if strconv.Itoa(code) != rest {
				return fmt.Errorf("exit code %d", code)
			}
			return nil
		case <-time.After(patience):
			return errors.New("it did not end")
		}
	}
	return errors.New("a line says expect, send, size, signal or exit")
}

func (t *terminal) close() {
	_ = t.cmd.Process.Kill()
	t.tty.Close()
	select {
	case <-t.ended:
	case <-time.After(patience):
	}
}
