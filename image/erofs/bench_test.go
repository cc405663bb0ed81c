package erofs

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// benchTar is a layer as images have them: files of ten kilobytes on average.
func benchTar(b *testing.B, files int) []byte {
	rnd := rand.New(rand.NewSource(1))
	var ents []ent
	for i := range files {
		body := make([]byte, rnd.Intn(20000))
		rnd.Read(body)
		ents = append(ents, ent{name: fmt.Sprintf("d%d/f%d", i%100, i), kind: tar.TypeReg, mode: 0o644, body: string(body)})
	}
	return makeTar(b, ents...)
}

func benchNames(b *testing.B, files, dirs int) string {
	var ents []ent
	for i := range files {
		ents = append(ents, ent{name: fmt.Sprintf("usr/d%d/file-%d", i%dirs, i), kind: tar.TypeReg, mode: 0o644, body: "x"})
	}
	p, err := writeLayer(b, makeTar(b, ents...))
	if err != nil {
		b.Fatal(err)
	}
	return p
}

func BenchmarkFromTar(b *testing.B) {
	tarball := benchTar(b, 5000)
	f, err := os.Create(filepath.Join(b.TempDir(), "l"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	b.SetBytes(int64(len(tarball)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := FromTar(f, bytes.NewReader(tarball)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMerge30000(b *testing.B) {
	p := benchNames(b, 30000, 2000)
	f, err := os.Create(filepath.Join(b.TempDir(), "i"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for b.Loop() {
		if err := Merge(f, []string{p}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, files := range []int{100, 30000} {
		b.Run(fmt.Sprint(files), func(b *testing.B) {
			p := benchNames(b, files, 100)
			index := merged(b, p).name
			for b.Loop() {
				m, err := Open(index, []string{p})
				if err != nil {
					b.Fatal(err)
				}
				m.Close()
			}
		})
	}
}

func BenchmarkLookup(b *testing.B) {
	m := merged(b, benchNames(b, 30000, 1))
	dir, errno := m.Resolve("usr/d0")
	if errno != 0 {
		b.Fatal(errno)
	}
	names := make([]string, 30000)
	for i := range names {
		names[i] = fmt.Sprintf("file-%d", i)
	}
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		if _, errno := m.Lookup(dir, names[i%len(names)]); errno != 0 {
			b.Fatal(errno)
		}
		i += 7919
	}
}

func BenchmarkRead(b *testing.B) {
	m := merged(b, benchNames(b, 100, 1))
	n, errno := m.Resolve("usr/d0/file-7")
	if errno != 0 {
		b.Fatal(errno)
	}
	buf := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, errno := m.Read(n, buf, 0); errno != 0 {
			b.Fatal(errno)
		}
	}
}

func TestTheHotPathDoesNotAllocate(t *testing.T) {
	m := merged(t, layer(t, ent{name: "d/f", kind: tar.TypeReg, mode: 0o644, body: "x", xattrs: map[string]string{"user.a": "b"}},
		ent{name: "l", kind: tar.TypeSymlink, link: "d"}))
	dir, _ := m.Lookup(m.Root(), "d")
	f, _ := m.Lookup(dir, "f")
	l, _ := m.Lookup(m.Root(), "l")
	var st unix.Stat_t
	buf := make([]byte, 10)
	for name, call := range map[string]func(){
		"Lookup":   func() { m.Lookup(dir, "f") },
		"Stat":     func() { m.Stat(f, &st) },
		"Read":     func() { m.Read(f, buf, 0) },
		"Readlink": func() { m.Readlink(l) },
		"GetXattr": func() { m.GetXattr(f, "user.a") },
		"ReadDir":  func() { m.ReadDir(dir, 0, func(string, uint64, uint32, uint64) bool { return true }) },
	} {
		if n := testing.AllocsPerRun(100, call); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}
