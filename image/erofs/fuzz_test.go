package erofs

import (
	"archive/tar"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// readAll reads everything in a file that may be damaged, with a limit on how much that is.
func readAll(p string) {
	m, err := OpenLayer(p)
	if err != nil {
		return
	}
	defer m.Close()
	readTree(m)
}

func readTree(m *Image) {
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

// Go's fuzzing spends a minute on making each find smaller; to see more of the ground, give it -fuzzminimizetime 1x.
func FuzzFromTar(f *testing.F) {
	f.Add(makeTar(f, ent{name: "d", kind: tar.TypeDir, mode: 0o755}, ent{name: "d/f", kind: tar.TypeReg}, ent{name: "l", kind: tar.TypeLink, link: "d/f"},
		ent{name: "d/n", kind: tar.TypeChar, major: 1}, ent{name: "d/.wh..wh..opq", kind: tar.TypeReg}, ent{name: "d/f", kind: tar.TypeFifo}))
	sparse := filepath.Join(f.TempDir(), "s")
	if os.WriteFile(sparse, []byte("start"), 0o644) == nil && os.Truncate(sparse, 1<<20) == nil {
		for _, format := range []string{"gnu", "pax"} {
			if b, err := exec.Command("tar", "-C", filepath.Dir(sparse), "-cS", "--format="+format, "s").Output(); err == nil {
				f.Add(b)
			}
		}
	}
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

// FuzzOpenIndex damages an index over a sound layer, and a layer on its way into an index.
func FuzzOpenIndex(f *testing.F) {
	low := layer(f, ent{name: "a/b", kind: tar.TypeReg, mode: 0o644, body: "x", xattrs: map[string]string{"user.q": "r"}},
		ent{name: "a/big", kind: tar.TypeReg, mode: 0o644, body: strings.Repeat("z", 9000)}, ent{name: "s", kind: tar.TypeSymlink, link: "a"})
	for _, p := range []string{merged(f, low).name, low} {
		b, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if m, err := Open(p, []string{low}); err == nil {
			readTree(m)
			m.Close()
		}
		dst, err := os.Create(filepath.Join(t.TempDir(), "index"))
		if err != nil {
			t.Fatal(err)
		}
		defer dst.Close()
		if Merge(dst, []string{low, p}) == nil {
			if m, err := Open(dst.Name(), []string{low, p}); err != nil {
				t.Errorf("what was merged cannot be opened: %v", err)
			} else {
				readTree(m)
				m.Close()
			}
		}
	})
}
