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
		"a symlink that is too long": {{name: "s", kind: tar.TypeSymlink, link: strings.Repeat("l", 5000)}},
	} {
		if _, err := writeLayer(t, makeTar(t, ents...)); !errors.Is(err, ErrLayer) {
			t.Errorf("%s: %v", name, err)
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

// readAll reads everything in a file that may be damaged, with a limit on how much that is.
func readAll(p string) {
	m, err := OpenLayer(p)
	if err != nil {
		return
	}
	defer m.Close()
	left := 5000
	buf := make([]byte, 8192)
	queue := []uint64{m.Root()}
	for len(queue) > 0 && left > 0 {
		nid := queue[0]
		queue = queue[1:]
		var st unix.Stat_t
		m.Stat(nid, &st)
		m.Read(nid, buf, 0)
		m.Read(nid, buf, st.Size-10)
		m.Readlink(nid)
		m.ListXattr(nid, func(n string) bool { m.GetXattr(nid, n); return true })
		m.ReadDir(nid, 0, func(name string, c uint64, _ uint32, _ uint64) bool {
			m.Lookup(nid, name)
			queue = append(queue, c)
			left--
			return left > 0
		})
	}
}

func FuzzFromTar(f *testing.F) {
	f.Add(makeTar(f, ent{name: "a/b", kind: tar.TypeReg, mode: 0o644, body: "x"}, ent{name: "a/.wh.c", kind: tar.TypeReg}))
	f.Add(makeTar(f, ent{name: "l", kind: tar.TypeSymlink, link: "a"}, ent{name: "x", kind: tar.TypeReg, body: strings.Repeat("y", 9000), xattrs: map[string]string{"user.q": "r"}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := writeLayer(t, b)
		if err != nil {
			return
		}
		m, err := OpenLayer(p)
		if err != nil {
			t.Fatalf("what was written cannot be opened: %v", err)
		}
		m.Close()
		readAll(p)
	})
}

func FuzzOpen(f *testing.F) {
	p := layer(f, ent{name: "a/b", kind: tar.TypeReg, mode: 0o644, body: "x", xattrs: map[string]string{"user.q": "r"}}, ent{name: "s", kind: tar.TypeSymlink, link: "a"})
	b, err := os.ReadFile(p)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		p := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		readAll(p)
	})
}

func BenchmarkFromTar(b *testing.B) {
	rnd := rand.New(rand.NewSource(1))
	var ents []ent
	for i := range 5000 {
		body := make([]byte, rnd.Intn(20000))
		rnd.Read(body)
		ents = append(ents, ent{name: fmt.Sprintf("d%d/f%d", i%100, i), kind: tar.TypeReg, mode: 0o644, body: string(body)})
	}
	tarball := makeTar(b, ents...)
	f, err := os.Create(filepath.Join(b.TempDir(), "l"))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(tarball)))
	b.ResetTimer()
	for b.Loop() {
		if _, err := FromTar(f, bytes.NewReader(tarball)); err != nil {
			b.Fatal(err)
		}
	}
}
