package fuseoverlay

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func prober(t *testing.T) Prober {
	needStage(t, "single")
	return Prober{Path: "/proc/self/exe", Argv: []string{"moss-probe"}, Env: os.Environ(), Cache: t.TempDir()}
}

func TestProbeFindsThatItWorksAndRemembers(t *testing.T) {
	p, dir := prober(t), t.TempDir()
	v, err := Probe(dir, p)
	if err != nil || !v.OK {
		t.Fatalf("%+v, %v", v, err)
	}
	if got := names(t, dir); got != "" {
		t.Errorf("the probe left %q", got)
	}
	p.Path = "/nonexistent"
	if again, err := Probe(dir, p); err != nil || again != v {
		t.Errorf("from the cache: %+v, %v", again, err)
	}
	kept, err := filepath.Glob(filepath.Join(p.Cache, "rootfs-*.json"))
	if err != nil || len(kept) != 1 {
		t.Fatal(kept, err)
	}
	if err := os.WriteFile(kept[0], []byte(`{"OK":tr`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Probe(dir, p); err == nil {
		t.Error("a damaged verdict was believed")
	}
}

func TestProbeSaysWhyNot(t *testing.T) {
	p, dir := prober(t), t.TempDir()
	if err := unix.Mount("moss", dir, "ramfs", 0, ""); err != nil {
		t.Skip("no ramfs, which has no user xattrs, in a user namespace:", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	v, err := Probe(dir, p)
	if err != nil || v.OK || !strings.Contains(v.Reason, "xattr") {
		t.Errorf("%+v, %v", v, err)
	}
	if got := names(t, dir); got != "" {
		t.Errorf("the probe left %q", got)
	}
}
