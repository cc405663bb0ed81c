package lifecycle

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Logs writes a container's log, stdout and stderr apart. With Follow it goes on until the container has ended, or
// ctx has.
func (e *Engine) Logs(ctx context.Context, nameOrID string, o LogsOptions, stdout, stderr io.Writer) error {
	id, err := e.find(nameOrID)
	if err != nil {
		return err
	}
	dir := e.dir(id)
	rec, err := dir.ReadRecord()
	if err != nil {
		return err
	}
	var watch *folderWatch
	if o.Follow {
		// Before the first read, so that nothing written in between is missed.
		if watch, err = watchFolder(string(dir)); err != nil {
			return err
		}
		defer watch.Close()
	}
	f, err := openLogForReading(dir.Log(), o.Follow)
	if err != nil || f == nil {
		return err
	}
	defer f.Close()
	if o.Tail >= 0 {
		if err := seekTail(f, o.Tail); err != nil {
			return err
		}
	}
	p := logPrinter{o: o, stdout: stdout, stderr: stderr, tty: rec.Config.Tty, prefix: detailsPrefix(rec, o)}
	r := bufio.NewReaderSize(f, 64<<10)
	var partial []byte // an object whose end is not written yet
	for {
		ended := !o.Follow || !e.running(id) // asked before reading: what was written before the end is read below
		for {
			b, err := r.ReadBytes('\n')
			partial = append(partial, b...)
			if err == io.EOF {
				break
			}
			if err != nil {
				return fmt.Errorf("read the log of %s: %w", nameOrID, err)
			}
			more, err := p.print(partial)
			if err != nil || !more {
				return err
			}
			partial = partial[:0]
		}
		if ended {
			return nil
		}
		if !o.Until.IsZero() && time.Now().After(o.Until) {
			return nil
		}
		if err := watch.Wait(ctx, time.Second); err != nil {
			return nil // the caller has seen enough
		}
	}
}

// openLogForReading waits for nothing: a container that never ran has no log, and nil is returned for it unless its
// log is to be followed.
func openLogForReading(path string, follow bool) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		if !follow {
			return nil, nil
		}
		return os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o600)
	}
	return f, err
}

type logPrinter struct {
	o              LogsOptions
	stdout, stderr io.Writer
	tty            bool
	prefix         string
}

// print writes one entry; more is false when no later one can be wanted.
func (p *logPrinter) print(line []byte) (more bool, err error) {
	var en logEntry
	if err := json.Unmarshal(line, &en); err != nil {
		return true, nil // half an object, from a monitor that was killed in mid-write
	}
	if en.Time.Before(p.o.Since) {
		return true, nil
	}
	if !p.o.Until.IsZero() && en.Time.After(p.o.Until) {
		return false, nil
	}
	w := p.stdout
	if en.Stream == "stderr" {
		w = p.stderr
	}
	if p.o.Timestamps {
		// docker pads the fraction to nine digits, so that lines stay in columns.
		if _, err := io.WriteString(w, en.Time.Format("2006-01-02T15:04:05.000000000Z07:00")+" "); err != nil {
			return false, err
		}
	}
	_, err = io.WriteString(w, p.prefix+en.Log)
	return err == nil, err
}

// detailsPrefix is what --details puts before each line: the labels and variables named by --log-opt.
func detailsPrefix(r *Record, o LogsOptions) string {
	if !o.Details {
		return ""
	}
	var kv []string
	for _, l := range strings.Split(r.HostConfig.LogConfig.Config["labels"], ",") {
		if v, ok := r.Config.Labels[l]; ok && l != "" {
			kv = append(kv, l+"="+v)
		}
	}
	return strings.Join(kv, ",") + " "
}

// folderWatch wakes whoever waits for files in a folder to change (inotify(7)). Where the change is made by another
// host the kernel tells nothing, so waits also end by themselves.
type folderWatch struct{ fd int }

func watchFolder(path string) (*folderWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_DELETE_SELF|unix.IN_MOVE_SELF); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch %s: %w", path, err)
	}
	return &folderWatch{fd}, nil
}

// Wait returns when something changed, when most has passed, or with ctx's error.
func (w *folderWatch) Wait(ctx context.Context, most time.Duration) error {
	end := time.Now().Add(most)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		left := time.Until(end)
		if left <= 0 {
			return nil
		}
		fds := []unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(min(left, 100*time.Millisecond).Milliseconds())+1)
		if err != nil && err != unix.EINTR {
			return err
		}
		if n > 0 {
			var buf [16 * (unix.SizeofInotifyEvent + unix.PathMax)]byte
			_, _ = unix.Read(w.fd, buf[:])
			return nil
		}
	}
}

func (w *folderWatch) Close() { unix.Close(w.fd) }
