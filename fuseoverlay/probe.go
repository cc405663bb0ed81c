package fuseoverlay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Verdict says whether a container's root can be stacked with its upper on some folder's file system.
type Verdict struct {
	OK         bool
	FileSystem string // the kernel's name of the folder's file system
	Reason     string // why not, and what to do
	Boot       string // the boot of the machine that it was found in
}

// Prober is what Probe runs: a program that calls ProbeMain, and its arguments, which are put before its own.
type Prober struct {
	Path  string
	Argv  []string // with the name of the role in Argv[0]
	Env   []string
	Cache string // a folder of the caller's alone, for verdicts; empty: ask each time
}

// probeTime is more than enough for ten system calls on a slow network file system.
const probeTime = 20 * time.Second

// Probe finds out by doing it: in namespaces made for it, an overlay is mounted over a tiny image with its upper in
// dir, then written, renamed, deleted from and executed from. An error means that there is no verdict.
func Probe(dir string, p Prober) (Verdict, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Verdict{}, fmt.Errorf("probe the root file system: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return Verdict{}, fmt.Errorf("probe the root file system on %s: %w", dir, err)
	}
	v := Verdict{FileSystem: FileSystem(dir), Boot: strings.TrimSpace(string(boot))}
	cache := ""
	if p.Cache != "" {
		cache = filepath.Join(p.Cache, fmt.Sprintf("rootfs-%x.json", st.Dev))
		if old, ok := cachedVerdict(cache, v); ok {
			return old, nil
		}
	}
	if v.Reason, err = runProbe(dir, p); err != nil {
		return Verdict{}, err
	}
	v.OK = v.Reason == ""
	if cache != "" {
		if err := keepVerdict(cache, v); err != nil {
			return v, err
		}
	}
	return v, nil
}

// cachedVerdict reads a verdict of this boot on the same kind of file system: device numbers are given out again.
func cachedVerdict(path string, want Verdict) (Verdict, bool) {
	var v Verdict
	b, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(b, &v) != nil || v.Boot != want.Boot || v.FileSystem != want.FileSystem {
		return Verdict{}, false
	}
	// Only a good verdict lasts: a bad one may be cured before the next boot (chmod 666 /dev/fuse).
	return v, v.OK
}

func keepVerdict(path string, v Verdict) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("keep the verdict on the root file system: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".rootfs-*")
	if err != nil {
		return fmt.Errorf("keep the verdict on the root file system: %w", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("keep the verdict on the root file system: %w", err)
	}
	return nil
}

// runProbe returns the reason why not, empty if all went well.
func runProbe(dir string, p Prober) (string, error) {
	scratch, err := os.MkdirTemp(dir, ".probe-")
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return err.Error(), nil
	}
	if err != nil {
		return "", fmt.Errorf("probe the root file system on %s: %w", dir, err)
	}
	defer removeScratch(scratch)
	ctx, cancel := context.WithTimeout(context.Background(), probeTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.Path)
	cmd.Args = append(append([]string{}, p.Argv...), "serve", scratch)
	cmd.Env = p.Env
	var said bytes.Buffer
	cmd.Stdout = &said
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		Pdeathsig:   unix.SIGKILL,
	}
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return fmt.Sprintf("the trial on %s did not end within %s", FileSystem(dir), probeTime), nil
	case cmd.Process == nil && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EINVAL)):
		return fmt.Sprintf("no user namespace can be made: %v", err), nil
	case said.Len() > 0:
		return strings.TrimSpace(said.String()), nil
	case err != nil:
		return "", fmt.Errorf("probe the root file system on %s: %w", dir, err)
	}
	return "", nil
}

// removeScratch removes what a probe left, also of one that was killed: the kernel makes the overlay's inner work
// folder without any permission, and its owner may have no capability to go over that.
func removeScratch(scratch string) {
	inner := filepath.Join(scratch, "work", "overlay", "work")
	_ = os.Chmod(inner, 0o700)
	_ = os.RemoveAll(scratch)
}
