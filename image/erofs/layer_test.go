package erofs

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"
)

// ent is an entry of a test's tar.
type ent struct {
	name   string
	kind   byte
	mode   int64
	uid    int
	body   string
	link   string
	xattrs map[string]string
	major  int64
}

func makeTar(t testing.TB, ents ...ent) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range ents {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Mode: e.mode, Uid: e.uid, Gid: e.uid, Size: int64(len(e.body)), Linkname: e.link,
			ModTime: time.Unix(1700000000, 123456789), Format: tar.FormatPAX, Devmajor: e.major, Devminor: e.major}
		for k, v := range e.xattrs {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords["SCHILY.xattr."+k] = v
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func writeLayer(t testing.TB, tarball []byte) (string, error) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "layer.erofs"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = FromTar(f, bytes.NewReader(tarball))
	return f.Name(), err
}

func layer(t testing.TB, ents ...ent) string {
	t.Helper()
	p, err := writeLayer(t, makeTar(t, ents...))
	if err != nil {
		t.Fatal(err)
	}
	fsck(t, p)
	return p
}

// fsck has Debian's checker read the file.
func fsck(t testing.TB, path string) {
	t.Helper()
	tool, err := exec.LookPath("fsck.erofs")
	if err != nil {
		return
	}
	if out, err := exec.Command(tool, path).CombinedOutput(); err != nil || bytes.Contains(out, []byte("error")) && !bytes.Contains(out, []byte("No error")) {
		t.Errorf("fsck.erofs %s: %v\n%s", path, err, out)
	}
}

func merged(t testing.TB, layers ...string) *Image {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "index.erofs"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Merge(f, layers); err != nil {
		t.Fatal(err)
	}
	m, err := Open(f.Name(), layers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// describe is a tree in lines: path, mode, owner, links, size, device, body or target, attributes.
func describe(t testing.TB, m *Image) string {
	t.Helper()
	var lines []string
	groups := map[uint64]string{}
	var walk func(nid uint64, p string)
	walk = func(nid uint64, p string) {
		var st unix.Stat_t
		if errno := m.Stat(nid, &st); errno != 0 {
			t.Fatalf("%s: %v", p, errno)
		}
		l := fmt.Sprintf("%s %o %d:%d", p, st.Mode, st.Uid, st.Gid)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			body := make([]byte, min(st.Size, 1<<20))
			n, errno := m.Read(nid, body, 0)
			if errno != 0 || int64(n) != min(st.Size, 1<<20) {
				t.Fatalf("%s: read %d of %d: %v", p, n, st.Size, errno)
			}
			l += fmt.Sprintf(" links %d size %d %q", st.Nlink, st.Size, shorten(body))
			if first, ok := groups[nid]; ok {
				l += " is " + first
			} else {
				groups[nid] = p
			}
		case unix.S_IFLNK:
			s, errno := m.Readlink(nid)
			if errno != 0 {
				t.Fatal(p, errno)
			}
			l += " -> " + s
		case unix.S_IFCHR, unix.S_IFBLK:
			l += fmt.Sprintf(" dev %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		var names []string
		m.ListXattr(nid, func(n string) bool { names = append(names, n); return true })
		slices.Sort(names)
		for _, n := range names {
			v, _ := m.GetXattr(nid, n)
			l += fmt.Sprintf(" %s=%q", n, v)
		}
		lines = append(lines, l)
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			m.ReadDir(nid, 0, func(name string, c uint64, mode uint32, _ uint64) bool {
				if got, errno := m.Lookup(nid, name); errno != 0 || got != c {
					t.Fatalf("lookup of %q in %s: %d %v, and it is listed as %d", name, p, got, errno, c)
				}
				walk(c, strings.TrimSuffix(p, "/")+"/"+name)
				return true
			})
		}
	}
	walk(m.Root(), "/")
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

func shorten(b []byte) string {
	if len(b) > 40 {
		return string(b[:20]) + "…" + string(b[len(b)-10:])
	}
	return string(b)
}

func TestEverythingThatALayerSaysIsKept(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 1000)
	p := layer(t,
		ent{name: "./", kind: tar.TypeDir, mode: 0o755},
		ent{name: "bin/su", kind: tar.TypeReg, mode: 0o4755, body: "setuid"},
		ent{name: "etc/", kind: tar.TypeDir, mode: 0o2775, uid: 7},
		ent{name: "etc/big", kind: tar.TypeReg, mode: 0o640, uid: 100000, body: big},
		ent{name: "etc/hard", kind: tar.TypeLink, link: "./etc/big"},
		ent{name: "etc/sym", kind: tar.TypeSymlink, mode: 0o777, link: "../bin/su"},
		ent{name: "dev/sda", kind: tar.TypeBlock, mode: 0o600, major: 300},
		ent{name: "dev/null", kind: tar.TypeChar, mode: 0o666, major: 1},
		ent{name: "run/fifo", kind: tar.TypeFifo, mode: 0o644},
		ent{name: "caf\xe9", kind: tar.TypeReg, mode: 0o644, body: "latin1"},
		ent{name: "cap", kind: tar.TypeReg, mode: 0o755, body: "x", xattrs: map[string]string{"security.capability": "\x01\x00\x00\x02\x00", "user.a": "b"}},
		ent{name: "tmp", kind: tar.TypeDir, mode: 0o1777},
	)
	m, err := OpenLayer(p)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	want := `/ 40755 0:0
/bin 40755 0:0
/bin/su 104755 0:0 links 1 size 6 "setuid"
/caf` + "\xe9" + ` 100644 0:0 links 1 size 6 "latin1"
/cap 100755 0:0 links 1 size 1 "x" security.capability="\x01\x00\x00\x02\x00" user.a="b"
/dev 40755 0:0
/dev/null 20666 0:0 dev 1:1
/dev/sda 60600 0:0 dev 300:300
/etc 42775 7:7
/etc/big 100640 100000:100000 links 2 size 16000 "0123456789abcdef0123…6789abcdef"
/etc/hard 100640 100000:100000 links 2 size 16000 "0123456789abcdef0123…6789abcdef" is /etc/big
/etc/sym 120777 0:0 -> ../bin/su
/run 40755 0:0
/run/fifo 10644 0:0
/tmp 41777 0:0
`
	if got := describe(t, m); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if !m.HasXattrs() {
		t.Error("HasXattrs is false")
	}
	// The same through an index.
	if got := describe(t, merged(t, p)); got != want {
		t.Errorf("merged: got\n%s\nwant\n%s", got, want)
	}
}

func TestWhiteoutsAreResolved(t *testing.T) {
	file := func(name, body string) ent { return ent{name: name, kind: tar.TypeReg, mode: 0o644, body: body} }
	dir := func(name string, mode int64) ent { return ent{name: name, kind: tar.TypeDir, mode: mode} }
	low := layer(t, dir("a", 0o700), file("a/one", "1"), file("a/two", "2"), dir("b", 0o755), file("b/old", "o"), file("c", "c"),
		dir("d", 0o755), file("d/x", "x"), dir("keep", 0o1777), file("keep/low", "l"), file("f", "file"), dir("g", 0o755), file("g/h", "h"))
	mid := layer(t, file("a/.wh.one", ""), file("b/.wh..wh..opq", ""), file("b/new", "n"), file(".wh.c", ""), file("d", "now a file"),
		file("keep/mid", "m"), dir("f", 0o755), file("f/in", "i"), file(".wh.g", ""), file("g/other", "o"))
	top := layer(t, file("c", "again"), file("a/.wh.nothing", ""), dir("d", 0o755))
	want := `/ 40755 0:0
/a 40700 0:0
/a/two 100644 0:0 links 1 size 1 "2"
/b 40755 0:0
/b/new 100644 0:0 links 1 size 1 "n"
/c 100644 0:0 links 1 size 5 "again"
/d 40755 0:0
/f 40755 0:0
/f/in 100644 0:0 links 1 size 1 "i"
/g 40755 0:0
/g/other 100644 0:0 links 1 size 1 "o"
/keep 41777 0:0
/keep/low 100644 0:0 links 1 size 1 "l"
/keep/mid 100644 0:0 links 1 size 1 "m"
`
	m := merged(t, low, mid, top)
	if got := describe(t, m); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if m.HasXattrs() {
		t.Error("an image without attributes says that it has some")
	}
	if got := describe(t, merged(t)); got != "/ 40755 0:0\n" {
		t.Errorf("an image without layers: %s", got)
	}
}

// zeroReader is endless nothing.
type zeroReader struct{}

func (zeroReader) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestTenGiBOfZerosTakeNoDisk(t *testing.T) {
	const size = 10 << 30
	var head, tail bytes.Buffer
	w := tar.NewWriter(&head)
	if err := w.WriteHeader(&tar.Header{Name: "zeros", Typeflag: tar.TypeReg, Size: size + 1, Mode: 0o644, Format: tar.FormatGNU}); err != nil {
		t.Fatal(err)
	}
	tail.WriteString("x")
	tail.Write(make([]byte, 511+1024))
	f, err := os.Create(filepath.Join(t.TempDir(), "l"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := FromTar(f, io.MultiReader(&head, io.LimitReader(zeroReader{}, size), &tail))
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(f.Name(), &st); err != nil || st.Blocks*512 > 1<<20 || info.Bytes != size+1 {
		t.Fatalf("%d bytes on disk, %+v, %v", st.Blocks*512, info, err)
	}
	fsck(t, f.Name())
	m := merged(t, f.Name())
	n, errno := m.Lookup(m.Root(), "zeros")
	b := []byte("????")
	if got, e := m.Read(n, b, size-3); errno != 0 || e != 0 || got != 4 || string(b) != "\x00\x00\x00x" {
		t.Fatalf("%v %v %d %q", errno, e, got, b)
	}
}

func TestSparseFilesKeepTheirHoles(t *testing.T) {
	body := strings.Repeat("\x00", 3<<20) + "middle" + strings.Repeat("\x00", 3<<20) + strings.Repeat("e", 5000)
	m := merged(t, layer(t, ent{name: "s", kind: tar.TypeReg, mode: 0o644, body: body}, ent{name: "t", kind: tar.TypeReg, mode: 0o600, body: "t"}))
	n, _ := m.Lookup(m.Root(), "s")
	got := make([]byte, len(body)+10)
	c, errno := m.Read(n, got, 0)
	if errno != 0 || string(got[:c]) != body {
		t.Fatalf("%v, %d bytes of %d", errno, c, len(body))
	}
	var st unix.Stat_t
	m.Stat(n, &st)
	if st.Blocks*512 > 64<<10 {
		t.Fatalf("%d blocks", st.Blocks)
	}
}

func TestManyEntriesAndDeepTrees(t *testing.T) {
	var ents []ent
	for i := range 30000 {
		ents = append(ents, ent{name: fmt.Sprintf("many/file%d", i), kind: tar.TypeReg, mode: 0o644, body: fmt.Sprint(i)})
	}
	deep := strings.Repeat("d/", 3000)
	ents = append(ents, ent{name: deep + "end", kind: tar.TypeReg, mode: 0o644, body: "deep"})
	p, err := writeLayer(t, makeTar(t, ents...))
	if err != nil {
		t.Fatal(err)
	}
	m := merged(t, p)
	dir, _ := m.Lookup(m.Root(), "many")
	seen, cookie := 0, uint64(0)
	for { // in pieces of a thousand
		part := 0
		m.ReadDir(dir, cookie, func(_ string, _ uint64, _ uint32, next uint64) bool {
			if part == 1000 {
				return false
			}
			part, cookie = part+1, next
			return true
		})
		if part == 0 {
			break
		}
		seen += part
	}
	if seen != 30000 {
		t.Errorf("%d entries listed", seen)
	}
	for _, i := range []int{0, 1, 777, 29999} {
		n, errno := m.Lookup(dir, fmt.Sprintf("file%d", i))
		b := make([]byte, 10)
		c, e := m.Read(n, b, 0)
		if errno != 0 || e != 0 || string(b[:c]) != fmt.Sprint(i) {
			t.Errorf("file%d: %v %v %q", i, errno, e, b[:c])
		}
	}
	if _, errno := m.Lookup(dir, "file30000"); errno != syscall.ENOENT {
		t.Errorf("a name that is not there: %v", errno)
	}
	if n, errno := m.Resolve(deep + "end"); errno != 0 || n == 0 {
		t.Errorf("the deep end: %v", errno)
	}
}

// The table of layers was at the end of an index once, which the superblock can only name in the first 8 MiB: about
// 65,000 files.
func TestAnIndexOfManyFilesCanBeMade(t *testing.T) {
	var ents []ent
	for i := range 80000 {
		ents = append(ents, ent{name: fmt.Sprintf("usr/lib/d%d/a-name-of-some-length-%d", i%500, i), kind: tar.TypeReg, mode: 0o644})
	}
	p, err := writeLayer(t, makeTar(t, ents...))
	if err != nil {
		t.Fatal(err)
	}
	m := merged(t, p)
	if len(m.meta) < 8<<20 {
		t.Fatalf("an index of %d bytes shows nothing", len(m.meta))
	}
	if _, errno := m.Resolve("usr/lib/d499/a-name-of-some-length-79999"); errno != 0 {
		t.Error(errno)
	}
}

func TestHostileTarsAreRefused(t *testing.T) {
	reg := func(name string) ent { return ent{name: name, kind: tar.TypeReg, mode: 0o644, body: "x"} }
	link := func(name, to string) ent { return ent{name: name, kind: tar.TypeLink, link: to} }
	for name, ents := range map[string][]ent{
		"a name with ..":             {reg("../../etc/passwd")},
		"a name with .. inside":      {reg("a/../../b")},
		"through a symlink":          {{name: "out", kind: tar.TypeSymlink, link: "/etc"}, reg("out/passwd")},
		"through a file":             {reg("f"), reg("f/g")},
		"a hard link out":            {link("l", "../../etc/passwd")},
		"a hard link to nothing":     {link("l", "missing")},
		"a hard link to a folder":    {{name: "d", kind: tar.TypeDir, mode: 0o755}, link("l", "d")},
		"a name that is too long":    {reg(strings.Repeat("n", 256))},
		"an unknown type":            {{name: "x", kind: 'Z'}},
		"a whiteout of nothing":      {reg("a/.wh.")},
		"a long link":                {link("l", strings.Repeat("m/", 4000))},
		"an attribute that is long":  {{name: "x", kind: tar.TypeReg, xattrs: map[string]string{"user." + strings.Repeat("n", 100000): "v"}}},
		"half a million folders":     {reg(strings.Repeat("d/", 500000) + "f")},
		"a symlink that is too long": {{name: "s", kind: tar.TypeSymlink, link: strings.Repeat("l", 5000)}},
	} {
		_, err := writeLayer(t, makeTar(t, ents...))
		if !errors.Is(err, ErrLayer) {
			t.Errorf("%s: %v", name, err)
		} else if len(err.Error()) > 2000 {
			t.Errorf("%s: a message of %d bytes", name, len(err.Error()))
		}
	}
	whole := makeTar(t, reg("a"), ent{name: "big", kind: tar.TypeReg, mode: 0o644, body: strings.Repeat("b", 100000)})
	for _, n := range []int{100, 1500, 50000} {
		if _, err := writeLayer(t, whole[:n]); !errors.Is(err, ErrLayer) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
	if _, err := writeLayer(t, bytes.Repeat([]byte("garbage "), 1000)); !errors.Is(err, ErrLayer) {
		t.Errorf("garbage: %v", err)
	}
}

func TestADamagedFileIsAnErrorAndNoPanic(t *testing.T) {
	var ents []ent
	for i := range 300 {
		ents = append(ents, ent{name: fmt.Sprintf("d%d/f%d", i%7, i), kind: tar.TypeReg, mode: 0o644, body: strings.Repeat("x", i*50), xattrs: map[string]string{"user.n": fmt.Sprint(i)}})
	}
	p := layer(t, ents...)
	good, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewSource(1))
	bad := filepath.Join(t.TempDir(), "bad")
	for range 300 {
		b := slices.Clone(good)
		for range 1 + rnd.Intn(20) {
			b[superOffset+rnd.Intn(len(b)-superOffset)] = byte(rnd.Intn(256))
		}
		if err := os.WriteFile(bad, b, 0o600); err != nil {
			t.Fatal(err)
		}
		readAll(bad)
	}
	for _, n := range []int{0, 100, 4096, len(good) - 4096} {
		if err := os.WriteFile(bad, good[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if m, err := OpenLayer(bad); err == nil {
			m.Close()
			t.Errorf("a file cut at %d was opened", n)
		}
	}
}

// An image made on a Mac carries attributes that no file system of Linux takes; docker leaves them out. Those that
// steer an overlay are not the image's to set.
func TestAttributesWithoutAPlaceAreLeftOut(t *testing.T) {
	m := merged(t, layer(t, ent{name: "f", kind: tar.TypeReg, mode: 0o644, xattrs: map[string]string{"com.apple.quarantine": "x", "user.": "x",
		"trusted.overlay.opaque": "y", "user.overlay.redirect": "/", "system.posix_acl_access": "acl", "trusted.t": "t"}}))
	want := "/ 40755 0:0\n/f 100644 0:0 links 1 size 0 \"\" system.posix_acl_access=\"acl\" trusted.t=\"t\"\n"
	if got := describe(t, m); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// GNU tar writes a sparse file as an entry of a type of its own, or by PAX records in three versions.
func TestGNUTarsSparseEntries(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	body := make([]byte, 20<<20)
	copy(body[5<<20:], "middle")
	if _, err := f.WriteAt([]byte("middle"), 5<<20); err != nil {
		t.Fatal(err)
	}
	pack := func(args ...string) []byte {
		out, err := exec.Command("tar", append([]string{"-C", dir, "-cS"}, append(args, "s")...)...).Output()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, args := range [][]string{{"--format=gnu"}, {"--format=pax", "--sparse-version=0.0"}, {"--format=pax", "--sparse-version=0.1"}, {"--format=pax", "--sparse-version=1.0"}} {
		if err := f.Truncate(20 << 20); err != nil {
			t.Fatal(err)
		}
		p, err := writeLayer(t, pack(args...))
		if err != nil {
			t.Fatal(args, err)
		}
		m := merged(t, p)
		n, _ := m.Lookup(m.Root(), "s")
		got := make([]byte, len(body)+1)
		if c, errno := m.Read(n, got, 0); errno != 0 || !bytes.Equal(got[:c], body) {
			t.Errorf("%v: %d bytes, %v", args, c, errno)
		}
		// It claims far more than anybody could go through.
		if err := f.Truncate(2 << 40); err != nil {
			t.Skip("the file system takes no such file: ", err)
		}
		if _, err := writeLayer(t, pack(args...)); !errors.Is(err, ErrLayer) {
			t.Errorf("%v: 2 TiB of holes: %v", args, err)
		}
	}
}

// What a file held before must not come out of the holes of what is written into it.
func TestALayerOverAnOldFileHasEmptyHoles(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "l"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(bytes.Repeat([]byte("old"), 20<<20)); err != nil {
		t.Fatal(err)
	}
	// Chunks are of more than a block here, and only the first block of each holds something.
	body := bytes.Repeat(append([]byte("x"), make([]byte, 64<<10-1)...), 20<<20>>16)
	if _, err := FromTar(f, bytes.NewReader(makeTar(t, ent{name: "s", kind: tar.TypeReg, mode: 0o644, body: string(body)}))); err != nil {
		t.Fatal(err)
	}
	m, err := OpenLayer(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	n, _ := m.Lookup(m.Root(), "s")
	got := make([]byte, len(body))
	if _, errno := m.Read(n, got, 0); errno != 0 || !bytes.Equal(got, body) {
		t.Errorf("the body is another: %v", errno)
	}
}

func TestOneTarGivesOneFile(t *testing.T) {
	tarball := makeTar(t, ent{name: "a/.wh.x", kind: tar.TypeReg}, ent{name: "b/.wh.y", kind: tar.TypeReg}, ent{name: "c/.wh.z", kind: tar.TypeReg},
		ent{name: "d/f", kind: tar.TypeReg, body: "x"}, ent{name: "d/g", kind: tar.TypeReg, body: "y"})
	var first []byte
	for range 10 {
		p, err := writeLayer(t, tarball)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = b
		} else if !bytes.Equal(first, b) {
			t.Fatal("the same layer gave two files")
		}
	}
}

// Of two entries of one name the later counts; what it replaces counts no more as a link.
func TestALaterEntryReplacesAnEarlierOne(t *testing.T) {
	reg := func(name, body string) ent { return ent{name: name, kind: tar.TypeReg, mode: 0o644, body: body} }
	m := merged(t, layer(t, reg("f", "old"), reg("f", "new"), reg("d/x", "x"), ent{name: "kept", kind: tar.TypeLink, link: "d/x"}, reg("d", "a file"),
		reg("g", "g"), ent{name: "g", kind: tar.TypeDir, mode: 0o700}, reg("g/in", "i"), reg("./.wh..wh.plnk/1", "of aufs"),
		reg("one", "1"), ent{name: "one", kind: tar.TypeLink, link: "one"}))
	want := `/ 40755 0:0
/d 100644 0:0 links 1 size 6 "a file"
/f 100644 0:0 links 1 size 3 "new"
/g 40700 0:0
/g/in 100644 0:0 links 1 size 1 "i"
/kept 100644 0:0 links 1 size 1 "x"
/one 100644 0:0 links 1 size 1 "1"
`
	if got := describe(t, m); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// A stream that fails is not the layer's fault.
func TestAFailingSourceIsNotABadLayer(t *testing.T) {
	broken := errors.New("connection reset")
	whole := makeTar(t, ent{name: "big", kind: tar.TypeReg, mode: 0o644, body: strings.Repeat("b", 100000)})
	f, err := os.Create(filepath.Join(t.TempDir(), "l"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, n := range []int{0, 300, 5000, len(whole)} {
		_, err := FromTar(f, io.MultiReader(bytes.NewReader(whole[:n]), iotest.ErrReader(broken)))
		if !errors.Is(err, broken) || errors.Is(err, ErrLayer) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

func TestPathsAreResolvedInsideTheTree(t *testing.T) {
	sym := func(name, to string) ent { return ent{name: name, kind: tar.TypeSymlink, link: to} }
	m := merged(t, layer(t, ent{name: "usr/lib/passwd", kind: tar.TypeReg, mode: 0o644, body: "x"}, sym("lib", "usr/lib"), sym("etc", "/lib"),
		sym("up", "../../../etc"), sym("loop", "loop"), sym("usr/back", "../up/passwd"), sym("dangling", "nowhere")))
	want, errno := m.Resolve("/usr/lib/passwd")
	if errno != 0 {
		t.Fatal(errno)
	}
	for p, e := range map[string]syscall.Errno{"lib/passwd": 0, "/etc/passwd": 0, "../../etc/passwd": 0, "up/passwd": 0, "usr/back": 0, "usr/../lib/./passwd": 0,
		"loop": syscall.ELOOP, "loop/x": syscall.ELOOP, "dangling": syscall.ENOENT, "usr/lib/passwd/x": syscall.ENOTDIR, "nowhere/..": syscall.ENOENT} {
		if got, errno := m.Resolve(p); errno != e || e == 0 && got != want {
			t.Errorf("%s: node %d, %v; want %v", p, got, errno, e)
		}
	}
}

// A layer that is cut while it is in use is an error for who reads it, and not the end of the process.
func TestACutLayerIsEIO(t *testing.T) {
	p := layer(t, ent{name: "f", kind: tar.TypeReg, mode: 0o644, body: strings.Repeat("x", 50000)})
	m := merged(t, p)
	n, _ := m.Lookup(m.Root(), "f")
	if err := os.Truncate(p, 4096); err != nil {
		t.Fatal(err)
	}
	if _, errno := m.Read(n, make([]byte, 50000), 0); errno != syscall.EIO {
		t.Errorf("reading from it: %v", errno)
	}
	if _, err := Open(m.name, []string{p}); !errors.Is(err, ErrFormat) {
		t.Errorf("opening it again: %v", err)
	}
}
