package fuseoverlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func serve(t testing.TB, tree Tree, opt ImageOptions) string {
	t.Helper()
	needStage(t, "single")
	dir := t.TempDir()
	s, err := Serve(tree, dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		s.Wait()
	})
	return dir
}

func stat(t testing.TB, path string) (st unix.Stat_t) {
	t.Helper()
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("stat %s: %v", path, err)
	}
	return st
}

func TestEveryFileTypeIsShownAsItIs(t *testing.T) {
	tree := newMemTree()
	for name, mode := range map[string]uint32{
		"reg": unix.S_IFREG | 0o640, "suid": unix.S_IFREG | 0o4755, "sgid": unix.S_IFREG | 0o2755, "dir": unix.S_IFDIR | 0o1777,
		"fifo": unix.S_IFIFO | 0o600, "sock": unix.S_IFSOCK | 0o700, "chr": unix.S_IFCHR | 0o666, "blk": unix.S_IFBLK | 0o660,
	} {
		n := tree.add(name, mode)
		n.st.Mtim = unix.Timespec{Sec: 1234567890, Nsec: 987654321}
		n.st.Uid, n.st.Gid = 1000, 50
		if mode&unix.S_IFMT == unix.S_IFCHR || mode&unix.S_IFMT == unix.S_IFBLK {
			n.st.Rdev = unix.Mkdev(259, 70000)
		}
	}
	tree.add("old", unix.S_IFREG).st.Mtim.Sec = -5
	l := tree.add("link", unix.S_IFLNK|0o777)
	l.target, l.st.Size = "../some/\xffwhere", 14
	dir := serve(t, tree, ImageOptions{})
	for name, n := range tree.nodes[1].kids {
		for _, how := range []string{"lookup", "listing"} {
			if how == "listing" {
				if _, err := os.ReadDir(dir); err != nil {
					t.Fatal(err)
				}
			}
			st := stat(t, filepath.Join(dir, name))
			if st.Mode != n.st.Mode || st.Rdev != n.st.Rdev || st.Mtim != n.st.Mtim || st.Ino != n.id || st.Size != n.st.Size {
				t.Errorf("%s by %s: have %+v, want %+v", name, how, st, n.st)
			}
		}
	}
	if to, err := os.Readlink(filepath.Join(dir, "link")); err != nil || to != l.target {
		t.Errorf("link: %q, %v", to, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "reg"), nil, 0); !errors.Is(err, unix.EROFS) {
		t.Errorf("a write to the image: %v, want EROFS", err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil || fs.Blocks != 77 || fs.Namelen != 255 {
		t.Errorf("statfs: %+v, %v", fs, err)
	}
}

func TestHardLinksAreOneFile(t *testing.T) {
	tree := newMemTree()
	n := tree.file("a", "content", 0o644)
	n.st.Nlink = 2
	tree.link("d/b", n)
	dir := serve(t, tree, ImageOptions{})
	a, b := stat(t, filepath.Join(dir, "a")), stat(t, filepath.Join(dir, "d/b"))
	if a.Ino != b.Ino || a.Nlink != 2 {
		t.Errorf("inodes %d and %d, %d links", a.Ino, b.Ino, a.Nlink)
	}
}

func TestLargeSparseFileReadsRight(t *testing.T) {
	tree := newMemTree()
	const size, mark = 5<<30 + 3, 4<<30 + 12345
	n := tree.file("big", "", 0o644)
	n.st.Size = size
	n.read = func(dst []byte, off int64) {
		if mark >= off && mark < off+int64(len(dst)) {
			dst[mark-off] = 'x'
		}
	}
	f, err := os.Open(filepath.Join(serve(t, tree, ImageOptions{}), "big"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 3<<20)
	if _, err := f.ReadAt(b, mark-1<<20); err != nil || b[1<<20] != 'x' || strings.Trim(string(b), "\x00") != "x" {
		t.Errorf("around the mark: %v", err)
	}
	if k, err := f.ReadAt(b, size-3); k != 3 || err == nil {
		t.Errorf("at the end: %d bytes, %v", k, err)
	}
}

func TestNamesAreBytes(t *testing.T) {
	tree := newMemTree()
	names := []string{"\xff\xfe", "a b", "new\nline", "\\", strings.Repeat("n", 255), "ü", ":,"}
	for _, n := range names {
		tree.file(n, n, 0o644)
	}
	tree.file(strings.Repeat("d/", 500)+"bottom", "deep", 0o644)
	dir := serve(t, tree, ImageOptions{})
	for _, n := range names {
		if b, err := os.ReadFile(filepath.Join(dir, n)); err != nil || string(b) != n {
			t.Errorf("%q: %q, %v", n, b, err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, strings.Repeat("d/", 500)+"bottom")); err != nil || string(b) != "deep" {
		t.Errorf("500 folders down: %q, %v", b, err)
	}
	for range 2 {
		if _, err := os.Stat(filepath.Join(dir, "absent")); !errors.Is(err, unix.ENOENT) {
			t.Errorf("a name that is not there: %v", err)
		}
	}
}

func TestLargeFolderIsListedOnceAndWhole(t *testing.T) {
	tree := newMemTree()
	const many = 30000
	for i := range many {
		tree.add(fmt.Sprintf("d/file-%05d", i), unix.S_IFREG|0o644)
	}
	d, err := os.Open(filepath.Join(serve(t, tree, ImageOptions{}), "d"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	seen := map[string]bool{}
	buf := make([]byte, 700) // a few entries a call
	for {
		n, err := unix.Getdents(int(d.Fd()), buf)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		_, _, names := syscall.ParseDirent(buf[:n], -1, nil)
		for _, name := range names {
			if seen[name] {
				t.Fatalf("%s is listed twice", name)
			}
			seen[name] = true
		}
	}
	if len(seen) != many {
		t.Errorf("%d entries, want %d", len(seen), many)
	}
	if _, err := d.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	if names, err := d.Readdirnames(-1); err != nil || len(names) != many {
		t.Errorf("again from the start: %d, %v", len(names), err)
	}
}

func TestXattrsAreShownButNotTheOverlaysOwn(t *testing.T) {
	tree := newMemTree()
	tree.xattrs = true
	tree.file("f", "", 0o644).xattr = map[string]string{"user.a": "one", "user.empty": "", "user.overlay.opaque": "y"}
	path := filepath.Join(serve(t, tree, ImageOptions{}), "f")
	buf := make([]byte, 64)
	if n, err := unix.Getxattr(path, "user.a", buf); err != nil || string(buf[:n]) != "one" {
		t.Errorf("get: %q, %v", buf[:max(n, 0)], err)
	}
	if n, err := unix.Getxattr(path, "user.a", nil); err != nil || n != 3 {
		t.Errorf("size: %d, %v", n, err)
	}
	if _, err := unix.Getxattr(path, "user.a", buf[:2]); err != unix.ERANGE {
		t.Errorf("short buffer: %v, want ERANGE", err)
	}
	if n, err := unix.Getxattr(path, "user.empty", buf); err != nil || n != 0 {
		t.Errorf("empty value: %d, %v", n, err)
	}
	for _, absent := range []string{"user.b", "user.overlay.opaque"} {
		if _, err := unix.Getxattr(path, absent, buf); err != unix.ENODATA {
			t.Errorf("%s: %v, want ENODATA", absent, err)
		}
	}
	n, err := unix.Listxattr(path, buf)
	if err != nil || n != len("user.a")+len("user.empty")+2 {
		t.Errorf("list: %q, %v", buf[:max(n, 0)], err)
	}
	if n, err := unix.Listxattr(path, nil); err != nil || n != len("user.a")+len("user.empty")+2 {
		t.Errorf("size of the list: %d, %v", n, err)
	}
}

func TestNoXattrsIsAnsweredByTheKernel(t *testing.T) {
	tree := newMemTree()
	tree.file("f", "", 0o644)
	dir := serve(t, tree, ImageOptions{})
	if _, err := unix.Getxattr(filepath.Join(dir, "f"), "user.a", nil); err != unix.EOPNOTSUPP {
		t.Errorf("%v, want EOPNOTSUPP", err)
	}
}

func TestPanicInTheTreeIsEIOAndTheServerGoesOn(t *testing.T) {
	tree := newMemTree()
	tree.file("f", "still here", 0o644)
	heard := make(chan string, 1)
	dir := serve(t, tree, ImageOptions{Panicked: func(what any, stack []byte) { heard <- fmt.Sprint(what) }})
	if _, err := os.Stat(filepath.Join(dir, "panic")); !errors.Is(err, unix.EIO) {
		t.Errorf("%v, want EIO", err)
	}
	if what := <-heard; what != "a tree that is broken" {
		t.Errorf("heard %q", what)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || string(b) != "still here" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestDeviceIsNotLeftToOtherPrograms(t *testing.T) {
	serve(t, newMemTree(), ImageOptions{})
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range fds {
		to, _ := os.Readlink("/proc/self/fd/" + e.Name())
		if to != "/dev/fuse" {
			continue
		}
		var fd int
		fmt.Sscan(e.Name(), &fd)
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d of /dev/fuse is inherited: %v", fd, err)
		}
	}
}
