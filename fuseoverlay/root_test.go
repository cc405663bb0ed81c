package fuseoverlay

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/hanwen/go-fuse/v2/posixtest"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func rootConfig(t testing.TB, tree Tree, base string) RootConfig {
	t.Helper()
	cfg := RootConfig{Tree: tree, Upper: filepath.Join(base, "upper"), Work: filepath.Join(base, "work"), Mounts: filepath.Join(base, "mounts")}
	for _, d := range []string{cfg.Upper, cfg.Work} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return cfg
}

func mountRoot(t testing.TB, cfg RootConfig) *Root {
	t.Helper()
	r, err := MountRoot(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// stackedRoot mounts a root for the length of a test.
func stackedRoot(t testing.TB, tree Tree) (dir string, cfg RootConfig) {
	t.Helper()
	needStage(t, "single")
	cfg = rootConfig(t, tree, t.TempDir())
	r := mountRoot(t, cfg)
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r.Dir, cfg
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var s []string
	for _, e := range entries {
		s = append(s, e.Name())
	}
	return strings.Join(s, " ")
}

func smallTree() *memTree {
	tree := newMemTree()
	tree.file("etc/passwd", "root", 0o644)
	tree.file("etc/shadow", "secret", 0o600)
	tree.file("bin/su", "su", 0o4755)
	tree.file("dir/a", "a", 0o644)
	tree.file("dir/b", "b", 0o644)
	return tree
}

func TestRootLooksLikeTheImage(t *testing.T) {
	tree := smallTree()
	tree.nodes[1].st.Mode = unix.S_IFDIR | 0o751
	dir, _ := stackedRoot(t, tree)
	if st := stat(t, dir); st.Mode != unix.S_IFDIR|0o751 || st.Uid != 0 || st.Mtim.Sec != 1000 {
		t.Errorf("root: mode %o, owner %d, time %d", st.Mode, st.Uid, st.Mtim.Sec)
	}
	if st := stat(t, dir+"/bin/su"); st.Mode&0o7777 != 0o4755 {
		t.Errorf("su: mode %o", st.Mode)
	}
	if got := names(t, dir); got != "bin dir etc" {
		t.Errorf("root lists %q", got)
	}
}

func TestDeletedStaysDeletedAndNewIsSeen(t *testing.T) {
	dir, _ := stackedRoot(t, smallTree())
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Remove(dir + "/dir/a"))
	if got := names(t, dir+"/dir"); got != "b" {
		t.Errorf("after the delete: %q", got)
	}
	must(os.WriteFile(dir+"/dir/a", []byte("again"), 0o644))
	must(os.RemoveAll(dir + "/dir"))
	must(os.Mkdir(dir+"/dir", 0o755))
	if got := names(t, dir+"/dir"); got != "" {
		t.Errorf("a folder made anew shows %q", got)
	}
	must(os.Rename(dir+"/etc/passwd", dir+"/etc/group"))
	if got := names(t, dir+"/etc"); got != "group shadow" {
		t.Errorf("after the rename: %q", got)
	}
	// A folder of the image cannot be renamed without redirects, which userxattr excludes: mv(1) copies then.
	if err := os.Rename(dir+"/etc", dir+"/etc2"); !errors.Is(err, unix.EXDEV) {
		t.Errorf("rename of a folder of the image: %v, want EXDEV", err)
	}
}

func TestChmodCopiesTheFileUp(t *testing.T) {
	dir, cfg := stackedRoot(t, smallTree())
	if err := os.Chmod(dir+"/etc/shadow", 0o640); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(dir + "/etc/shadow"); err != nil || string(b) != "secret" {
		t.Errorf("%q, %v", b, err)
	}
	if st := stat(t, cfg.Upper+"/etc/shadow"); st.Mode&0o7777 != 0o640 {
		t.Errorf("in the upper: mode %o", st.Mode)
	}
}

func TestProgramsRunAndMapFromTheRoot(t *testing.T) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	tree := newMemTree()
	tree.file("bin/self", string(self), 0o755)
	tree.file("data", strings.Repeat("0123456789", 100000), 0o644)
	dir, _ := stackedRoot(t, tree)
	if out := use(t, "exec", dir+"/bin/self"); out != "executed" {
		t.Errorf("the program said %q", out)
	}
	if out := use(t, "mmap", dir+"/data"); out != strings.Repeat("0123456789", 100000) {
		t.Errorf("mapped: %d bytes that differ", len(out))
	}
}

func TestRootComesBackAsItWasLeft(t *testing.T) {
	needStage(t, "single")
	for _, throwaway := range []bool{false, true} {
		cfg := rootConfig(t, smallTree(), t.TempDir())
		cfg.Throwaway = throwaway
		r := mountRoot(t, cfg)
		if err := errors.Join(os.WriteFile(r.Dir+"/new", []byte("kept"), 0o600), os.Remove(r.Dir+"/dir/a"), os.Chmod(r.Dir, 0o700)); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(cfg.Work, "overlay")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the overlay's work folder is left: %v", err)
		}
		// What a monitor leaves that is killed.
		left := filepath.Join(cfg.Work, "overlay", "work", "incompat", "volatile")
		if err := errors.Join(os.MkdirAll(left, 0o700), os.Chmod(filepath.Dir(filepath.Dir(left)), 0)); err != nil {
			t.Fatal(err)
		}
		r = mountRoot(t, cfg)
		if b, err := os.ReadFile(r.Dir + "/new"); err != nil || string(b) != "kept" {
			t.Errorf("%q, %v", b, err)
		}
		if got := names(t, r.Dir+"/dir"); got != "b" {
			t.Errorf("the deleted file is back: %q", got)
		}
		if st := stat(t, r.Dir); st.Mode&0o7777 != 0o700 {
			t.Errorf("the root's mode is %o, the container made it 700", st.Mode)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPathsMayHoldWhatMountOptionsUse(t *testing.T) {
	needStage(t, "single")
	for _, name := range []string{"a b", "a,b:c", `back\slash`, "colon\\:", "upperdir=x,lowerdir=y", "\xff", strings.Repeat(strings.Repeat("l", 250)+"/", 14)} {
		cfg := rootConfig(t, smallTree(), filepath.Join(t.TempDir(), name))
		r := mountRoot(t, cfg)
		if err := os.WriteFile(r.Dir+"/new", nil, 0o600); err != nil {
			t.Errorf("%.20q: %v", name, err)
		}
		if err := r.Close(); err != nil {
			t.Errorf("%.20q: %v", name, err)
		}
	}
}

func TestReadOnlyRootRefusesWrites(t *testing.T) {
	needStage(t, "single")
	cfg := rootConfig(t, smallTree(), t.TempDir())
	cfg.ReadOnly = true
	r := mountRoot(t, cfg)
	defer r.Close()
	if err := os.WriteFile(r.Dir+"/new", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("%v, want EROFS", err)
	}
}

func TestUpperWithoutUserXattrsIsRefusedWithTheRemedy(t *testing.T) {
	needStage(t, "single")
	base := t.TempDir()
	if err := unix.Mount("moss", base, "ramfs", 0, ""); err != nil {
		t.Skip("no ramfs, which has no user xattrs, in a user namespace:", err)
	}
	defer unix.Unmount(base, unix.MNT_DETACH)
	r, err := MountRoot(rootConfig(t, smallTree(), base))
	if err == nil {
		r.Close()
		t.Fatal("it was mounted")
	}
	if !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "set MOSS_ROOT") || !strings.Contains(err.Error(), "ramfs") {
		t.Error(err)
	}
}

func TestWayToMakeARootIsChecked(t *testing.T) {
	for mode, want := range map[string]error{"": nil, "stacked": nil, "fuse": errdefs.ErrNotImplemented, "fast": errdefs.ErrInvalidArgument} {
		if err := checkMode(mode); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", mode, err, want)
		}
	}
}

func TestRangeOwnersAreMapped(t *testing.T) {
	needStage(t, "range")
	tree := newMemTree()
	owners := map[string][2]uint32{"root": {0, 0}, "user": {1000, 100}, "far": {4000000, 5000000}}
	for name, o := range owners {
		n := tree.file(name, name, 0o6755)
		n.st.Uid, n.st.Gid = o[0], o[1]
	}
	// As under root: the container's ids lie one above.
	shift := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1, Size: 60000}}
	cfg := rootConfig(t, tree, t.TempDir())
	cfg.UIDs, cfg.GIDs = shift, shift
	r := mountRoot(t, cfg)
	defer r.Close()
	for name, want := range map[string]unix.Stat_t{
		"root": {Uid: 1, Gid: 1, Mode: 0o6755}, "user": {Uid: 1001, Gid: 101, Mode: 0o6755},
		// 65534 is not in the map either: root stands in, but nobody becomes it by running the file.
		"far": {Uid: 1, Gid: 1, Mode: 0o755},
	} {
		st := stat(t, filepath.Join(r.Dir, name))
		if st.Uid != want.Uid || st.Gid != want.Gid || st.Mode&0o7777 != want.Mode {
			t.Errorf("%s: owner %d:%d, mode %o; want %d:%d, %o", name, st.Uid, st.Gid, st.Mode&0o7777, want.Uid, want.Gid, want.Mode)
		}
	}
	if st := stat(t, r.Dir); st.Uid != 1 || st.Gid != 1 {
		t.Errorf("the root's owner is %d:%d, want 1:1", st.Uid, st.Gid)
	}
	if err := os.Chown(filepath.Join(r.Dir, "user"), 2001, 201); err != nil {
		t.Error("chown in the range:", err)
	}
}

func TestPosix(t *testing.T) {
	dir, _ := stackedRoot(t, smallTree())
	for name, test := range posixtest.All {
		t.Run(name, func(t *testing.T) {
			switch name {
			case "FcntlFlockLocksFile", "OpenSymlinkRace":
				t.Skip("go-fuse's own run of the suite leaves it out as well")
			case "DirectIO":
				t.Skip("depends on the file system of the upper")
			}
			sub := filepath.Join(dir, name)
			if err := os.MkdirAll(sub, 0o755); err != nil {
				t.Fatal(err)
			}
			test(t, sub)
		})
	}
}
