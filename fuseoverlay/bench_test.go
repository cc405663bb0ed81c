package fuseoverlay

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const benchFiles = 10000

func benchTree() *memTree {
	tree := newMemTree()
	body := strings.Repeat("x", 3000)
	for i := range benchFiles {
		tree.file(fmt.Sprintf("d%02d/e%d/file-%d", i%100, i%7, i), body, 0o644)
	}
	return tree
}

func walk(b *testing.B, dir string) (n int) {
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil {
			_, err = d.Info()
			n++
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return n
}

func BenchmarkWalkCold(b *testing.B) {
	needStage(b, "single")
	tree := benchTree()
	for b.Loop() {
		b.StopTimer()
		r := mountRoot(b, rootConfig(b, tree, b.TempDir()))
		b.StartTimer()
		walk(b, r.Dir)
		b.StopTimer()
		r.Close()
		b.StartTimer()
	}
}

func BenchmarkWalkWarm(b *testing.B) {
	dir, _ := stackedRoot(b, benchTree())
	walk(b, dir)
	for b.Loop() {
		walk(b, dir)
	}
}

// BenchmarkOpenReadWarm has the file system of the upper beside the root, as what it is measured against.
func BenchmarkOpenReadWarm(b *testing.B) {
	dir, cfg := stackedRoot(b, benchTree())
	const some = 500
	native := filepath.Join(cfg.Work, "native")
	var paths, copies []string
	for i := range some {
		paths = append(paths, fmt.Sprintf("%s/d%02d/e%d/file-%d", dir, i%100, i%7, i))
		copies = append(copies, strings.Replace(paths[i], dir, native, 1))
		body, err := os.ReadFile(paths[i]) // warms it, too
		if err == nil {
			err = os.MkdirAll(filepath.Dir(copies[i]), 0o700)
		}
		if err == nil {
			err = os.WriteFile(copies[i], body, 0o600)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	for name, files := range map[string][]string{"root": paths, "native": copies} {
		b.Run(name, func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				if _, err := os.ReadFile(files[i%some]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkStatWarm(b *testing.B) {
	dir, _ := stackedRoot(b, benchTree())
	var st unix.Stat_t
	for b.Loop() {
		if err := unix.Lstat(dir+"/d00/e0/file-0", &st); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMountRoot(b *testing.B) {
	needStage(b, "single")
	tree := newMemTree()
	cfg := rootConfig(b, tree, b.TempDir())
	cfg.Throwaway = true
	for b.Loop() {
		if err := mountRoot(b, cfg).Close(); err != nil {
			b.Fatal(err)
		}
	}
}
