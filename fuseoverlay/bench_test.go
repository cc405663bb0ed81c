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

func BenchmarkOpenReadWarm(b *testing.B) {
	dir, _ := stackedRoot(b, benchTree())
	i := 0
	for b.Loop() {
		// The first round is cold, and is one file in many.
		if _, err := os.ReadFile(fmt.Sprintf("%s/d%02d/e%d/file-%d", dir, i%100, i%7, i)); err != nil {
			b.Fatal(err)
		}
		i = (i + 1) % 500
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
