package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"

	"github.com/moss-run/moss/userns"
)

// Remove removes a container that does not run, with its files and its name. One that runs is errdefs.ErrConflict
// unless Force kills it first.
func (e *Engine) Remove(ctx context.Context, nameOrID string, o RemoveOptions) error {
	id, err := e.find(nameOrID)
	if err != nil {
		if o.Force && isMissing(err) {
			return nil
		}
		return err
	}
	st, err := e.state(id)
	if err != nil {
		return err
	}
	if st.Status == container.StateRunning {
		if !o.Force {
			return failure(errdefs.ErrConflict, "cannot remove container %q: container is running: stop the container before removing or force remove", nameOrID)
		}
		if st.Monitor.elsewhere() {
			return failure(errdefs.ErrUnavailable, "container %s runs on host %s: remove it there", nameOrID, st.Monitor.Host)
		}
		if err := e.kill(ctx, id); err != nil {
			return err
		}
	}
	lock, ok, err := lockDir(e.dir(id))
	if err == nil && !ok {
		lock, ok, err = e.lockSoon(ctx, id)
	}
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was a --rm container, and has just gone by itself
		}
		return err
	}
	if !ok {
		return failure(errdefs.ErrConflict, "container %s is being started or removed by another command", nameOrID)
	}
	defer lock.Close()
	return e.removeLocked(id, o.Volumes)
}

// removeLocked removes a container whose lock the caller holds.
func (e *Engine) removeLocked(id string, volumes bool) error {
	dir := e.dir(id)
	var anonymous []string
	if rec, err := dir.ReadRecord(); err == nil {
		if volumes {
			anonymous = e.anonymousVolumes(rec)
		}
		if err := e.dropName(rec.Name, id); err != nil {
			return err
		}
	}
	if err := e.bury(string(dir), e.grave(id)); err != nil {
		return err
	}
	if run, err := containerRunDir(id); err == nil {
		clearRunDir(run)
	}
	for _, v := range anonymous {
		if err := e.removeVolume(v); err != nil {
			return err
		}
	}
	return nil
}

// bury takes a folder out of sight at once, by renaming it to grave, and then removes it: what is interrupted between
// leaves no half of a container in any listing.
func (e *Engine) bury(dir, grave string) error {
	if err := os.Rename(dir, grave); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return e.removeTree(grave)
}

// RemoveRole is the argv[0] under which the moss binary removes a folder as id 0 of the user's namespace.
const RemoveRole = "moss-remove"

// removeTree removes a folder in which files may belong to the user's subordinate ids: where the user himself may not
// remove them, id 0 of his user namespace may.
func (e *Engine) removeTree(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	ids, derr := userns.Detect()
	if derr != nil {
		return err
	}
	programs, perr := e.programs()
	if perr != nil {
		return perr
	}
	var out strings.Builder
	cmd := &exec.Cmd{Path: programs.Monitor.Path, Args: []string{RemoveRole, dir}, Env: os.Environ(), Stdout: &out, Stderr: &out}
	if err := userns.StartOuter(cmd, ids); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("remove %s: %w: %s", dir, err, strings.TrimSpace(out.String()))
	}
	return nil
}

// RemoveMain is the main function of RemoveRole: args are the folder.
func RemoveMain(args []string) int {
	if err := userns.AwaitOuter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := os.RemoveAll(args[0]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// Prune removes every container that does not run and matches the filters until and label.
func (e *Engine) Prune(ctx context.Context, filters map[string][]string) (container.PruneReport, error) {
	rep := container.PruneReport{ContainersDeleted: []string{}}
	match, until, err := pruneFilter(filters)
	if err != nil {
		return rep, err
	}
	e.sweep()
	list, err := e.all()
	if err != nil {
		return rep, err
	}
	f, err := newFilter(list, match)
	if err != nil {
		return rep, err
	}
	for _, c := range list {
		if c.state.Status == container.StateRunning || !f.ok(c) || !until.IsZero() && !c.rec.Created.Before(until) {
			continue
		}
		if unwantedLabel(c, filters["label!"]) {
			continue
		}
		size := treeSize(c.dir.Upper())
		err := e.Remove(ctx, c.id, RemoveOptions{})
		if errors.Is(err, errdefs.ErrConflict) || isMissing(err) {
			continue // started or removed by somebody else meanwhile
		}
		if err != nil {
			return rep, err
		}
		rep.ContainersDeleted = append(rep.ContainersDeleted, c.id)
		rep.SpaceReclaimed += uint64(size)
	}
	return rep, nil
}

// sweep removes what commands that were killed left half made (.new-) or half removed (.removing-), once it is old
// enough to be nobody's any more.
func (e *Engine) sweep() {
	for _, dir := range []string{e.containers(), e.volumes()} {
		entries, _ := os.ReadDir(dir)
		for _, en := range entries {
			if !strings.HasPrefix(en.Name(), ".new-") && !strings.HasPrefix(en.Name(), ".removing-") {
				continue
			}
			if fi, err := en.Info(); err == nil && time.Since(fi.ModTime()) > time.Hour {
				_ = e.removeTree(filepath.Join(dir, en.Name()))
			}
		}
	}
}

// pruneFilter splits until (a duration back from now, or a time) from the filters that List knows too.
func pruneFilter(filters map[string][]string) (rest map[string][]string, until time.Time, err error) {
	rest = map[string][]string{}
	for k, vs := range filters {
		switch k {
		case "label":
			rest[k] = vs
		case "label!":
		case "until":
			for _, v := range vs {
				if until, err = parseUntil(v); err != nil {
					return nil, until, err
				}
			}
		default:
			return nil, until, failure(errdefs.ErrInvalidArgument, "invalid filter '%s'", k)
		}
	}
	return rest, until, nil
}

func parseUntil(v string) (time.Time, error) {
	if d, err := time.ParseDuration(v); err == nil {
		return time.Now().Add(-d), nil
	}
	if sec, err := strconv.ParseInt(v, 10, 64); err == nil {
		return time.Unix(sec, 0), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, v, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, failure(errdefs.ErrInvalidArgument, "invalid filter 'until=%s'", v)
}

func unwantedLabel(c *full, labels []string) bool {
	f := &filter{}
	for _, l := range labels {
		if f.holds(c, "label", l) {
			return true
		}
	}
	return false
}
