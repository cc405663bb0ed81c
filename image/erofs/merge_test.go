package erofs

import (
	"archive/tar"
	"fmt"
	"maps"
	"math/rand"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// model is an image as the simplest thing that can hold one: a line for each path.
type model map[string]string

func (m model) isDir(p string) bool { return strings.HasPrefix(m[p], "dir") }

func (m model) drop(p string, itself bool) {
	for q := range m {
		if itself && q == p || strings.HasPrefix(q, strings.TrimSuffix(p, "/")+"/") && q != "/" {
			delete(m, q)
		}
	}
}

// apply puts a layer on the model by the rules of the OCI image spec: first what it hides, then what it brings.
func (m model) apply(ents []ent) {
	for _, e := range ents {
		dir, name := path.Split(path.Join("/", e.name))
		switch {
		case name == whiteoutOpaque:
			m.drop(path.Clean(dir), false)
		case strings.HasPrefix(name, whiteoutPrefix):
			m.drop(path.Join(dir, strings.TrimPrefix(name, whiteoutPrefix)), true)
		}
	}
	for _, e := range ents {
		p := path.Join("/", e.name)
		for parent := path.Dir(p); ; parent = path.Dir(parent) {
			if !m.isDir(parent) {
				m[parent] = "dir 755 0"
			}
			if parent == "/" {
				break
			}
		}
		switch {
		case strings.HasPrefix(path.Base(p), whiteoutPrefix):
		case e.kind == tar.TypeDir:
			m[p] = fmt.Sprintf("dir %o %d", e.mode, e.uid)
		default:
			m.drop(p, true)
			m[p] = fmt.Sprintf("file %o %d %s", e.mode, e.uid, e.body)
		}
	}
}

func modelOf(t testing.TB, img *Image) model {
	t.Helper()
	out := model{}
	var walk func(nid uint64, p string)
	walk = func(nid uint64, p string) {
		var st unix.Stat_t
		if errno := img.Stat(nid, &st); errno != 0 {
			t.Fatal(p, errno)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			body := make([]byte, st.Size)
			if _, errno := img.Read(nid, body, 0); errno != 0 {
				t.Fatal(p, errno)
			}
			out[p] = fmt.Sprintf("file %o %d %s", st.Mode&0o7777, st.Uid, body)
			return
		}
		out[p] = fmt.Sprintf("dir %o %d", st.Mode&0o7777, st.Uid)
		img.ReadDir(nid, 0, func(name string, c uint64, _ uint32, _ uint64) bool { walk(c, path.Join(p, name)); return true })
	}
	walk(img.Root(), "/")
	return out
}

// randomLayer is a few entries over so few names that layers get into each other's way.
func randomLayer(rnd *rand.Rand, number int) []ent {
	var ents []ent
	kinds := map[string]string{} // of each path in this layer
	for range 1 + rnd.Intn(8) {
		parts := make([]string, 1+rnd.Intn(4))
		for i := range parts {
			parts[i] = string(rune('a' + rnd.Intn(3)))
		}
		p := strings.Join(parts, "/")
		// In one layer a name is one thing.
		kind := []string{"file", "dir", "whiteout", "opaque"}[rnd.Intn(4)]
		fits := true
		for i := 1; i < len(parts); i++ {
			fits = fits && kinds[strings.Join(parts[:i], "/")] != "file"
		}
		if !fits || kind == "file" && kinds[p] != "" || kind != "whiteout" && kinds[p] == "file" {
			continue
		}
		for i := 1; i < len(parts); i++ {
			kinds[strings.Join(parts[:i], "/")] = "dir"
		}
		e := ent{name: p, mode: rnd.Int63n(0o1000), uid: number}
		switch kind {
		case "file":
			e.kind, e.body = tar.TypeReg, fmt.Sprintf("%d %s", number, strings.Repeat("x", rnd.Intn(3)*3000))
		case "dir":
			e.kind = tar.TypeDir
		case "whiteout":
			ents = append(ents, ent{name: path.Join(path.Dir(p), whiteoutPrefix+path.Base(p)), kind: tar.TypeReg})
			continue
		case "opaque":
			e.kind = tar.TypeDir
			ents = append(ents, ent{name: p + "/" + whiteoutOpaque, kind: tar.TypeReg})
		}
		kinds[p] = kind
		ents = append(ents, e)
	}
	return ents
}

func TestAMergeIsWhatTheRulesSay(t *testing.T) {
	rnd := rand.New(rand.NewSource(7))
	for round := range 400 {
		want := model{"/": "dir 755 0"}
		var files []string
		var told []string
		for n := range 1 + rnd.Intn(5) {
			ents := randomLayer(rnd, n)
			want.apply(ents)
			f, err := writeLayer(t, makeTar(t, ents...))
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
			told = append(told, fmt.Sprintf("%v", ents))
		}
		f, err := os.Create(filepath.Join(t.TempDir(), "index"))
		if err != nil {
			t.Fatal(err)
		}
		if err := Merge(f, files); err != nil {
			t.Fatal(err)
		}
		f.Close()
		m, err := Open(f.Name(), files)
		if err != nil {
			t.Fatal(err)
		}
		got := modelOf(t, m)
		m.Close()
		if !maps.Equal(got, want) {
			all := slices.Sorted(maps.Keys(got))
			for p := range want {
				if _, ok := got[p]; !ok {
					all = append(all, p)
				}
			}
			for _, p := range all {
				if got[p] != want[p] {
					t.Errorf("round %d: %s is %q, and should be %q", round, p, got[p], want[p])
				}
			}
			t.Fatalf("layers, the bottom first:\n%s", strings.Join(told, "\n"))
		}
	}
}

// A damaged layer may name a folder in two places, and so lead round in a circle.
func TestACircleInALayerIsAnError(t *testing.T) {
	p := layer(t, ent{name: "a/b", kind: tar.TypeDir, mode: 0o755})
	m, err := OpenLayer(p)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := m.Lookup(m.Root(), "a")
	n, errno := m.inode(a)
	if errno != 0 || n.layout != layoutInline {
		t.Fatal(errno, n.layout)
	}
	at := int64(behind(a, &n))
	m.Close()
	f, err := os.OpenFile(p, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// Its third entry, behind "." and "..", is b.
	if _, err := f.WriteAt(le.AppendUint64(nil, a), at+2*direntSize); err != nil {
		t.Fatal(err)
	}
	dst, err := os.Create(filepath.Join(t.TempDir(), "index"))
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	if err := Merge(dst, []string{p}); err == nil {
		t.Error("merged")
	}
}
