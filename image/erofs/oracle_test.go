package erofs

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A listing is a tree to compare: a line for each path. The same is made of an Image and of a folder on disk.
type listing map[string]string

func line(st *unix.Stat_t, body []byte, target string, xattrs []string) string {
	slices.Sort(xattrs)
	s := fmt.Sprintf("%o %d:%d %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		s += fmt.Sprintf(" links %d size %d %x", st.Nlink, st.Size, sha256.Sum256(body))
	case unix.S_IFLNK:
		s += " -> " + target
	case unix.S_IFCHR, unix.S_IFBLK:
		s += fmt.Sprintf(" dev %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	return s + " " + strings.Join(xattrs, " ")
}

func listImage(t testing.TB, m *Image) listing {
	t.Helper()
	out := listing{}
	type at struct {
		nid  uint64
		path string
	}
	for queue := []at{{m.Root(), "/"}}; len(queue) > 0; queue = queue[1:] {
		a := queue[0]
		var st unix.Stat_t
		if errno := m.Stat(a.nid, &st); errno != 0 {
			t.Fatalf("stat %q: %v", a.path, errno)
		}
		var body []byte
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			body = make([]byte, st.Size)
			// In odd pieces, so that reads begin and end in the middle of chunks.
			for off := 0; off < len(body); off += 30011 {
				if n, errno := m.Read(a.nid, body[off:min(off+30011, len(body))], int64(off)); errno != 0 || n != min(30011, len(body)-off) {
					t.Fatalf("read %q at %d: %d, %v", a.path, off, n, errno)
				}
			}
		}
		target, _ := m.Readlink(a.nid)
		var xattrs []string
		m.ListXattr(a.nid, func(n string) bool {
			v, errno := m.GetXattr(a.nid, n)
			if errno != 0 {
				t.Fatalf("%q lists %q: %v", a.path, n, errno)
			}
			xattrs = append(xattrs, fmt.Sprintf("%s=%q", n, v))
			return true
		})
		out[a.path] = line(&st, body, target, xattrs)
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		m.ReadDir(a.nid, 0, func(name string, nid uint64, mode uint32, _ uint64) bool {
			if got, errno := m.Lookup(a.nid, name); errno != 0 || got != nid {
				t.Fatalf("lookup of %q in %q: %d %v, and it is listed as %d", name, a.path, got, errno, nid)
			}
			queue = append(queue, at{nid, path.Join(a.path, name)})
			return true
		})
	}
	return out
}

func listDisk(t testing.TB, root string) listing {
	t.Helper()
	out := listing{}
	err := filepath.Walk(root, func(p string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		var body []byte
		var target string
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			if body, err = os.ReadFile(p); err != nil {
				return err
			}
		case unix.S_IFLNK:
			if target, err = os.Readlink(p); err != nil {
				return err
			}
		}
		var xattrs []string
		names := make([]byte, 4096)
		if n, err := unix.Llistxattr(p, names); err == nil {
			for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
				value := make([]byte, 65536)
				if name == "" {
					continue
				}
				n, err := unix.Lgetxattr(p, name, value)
				if err != nil {
					return err
				}
				xattrs = append(xattrs, fmt.Sprintf("%s=%q", name, value[:n]))
			}
		}
		out["/"+strings.TrimPrefix(strings.TrimPrefix(p, root), "/")] = line(&st, body, target, xattrs)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (want listing) compare(t testing.TB, what string, got listing) {
	t.Helper()
	for p, l := range want {
		if got[p] != l {
			t.Errorf("%s: %q:\n is     %s\n should %s", what, p, got[p], l)
		}
	}
	for p := range got {
		if _, ok := want[p]; !ok {
			t.Errorf("%s: %q should not be there", what, p)
		}
	}
}

// randomTar is a layer of all kinds of files, and with a folder's entry for each folder. devices says whether to put
// some in.
func randomTar(t testing.TB, rnd *rand.Rand, devices bool) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	dirs, files := []string{""}, []string(nil)
	used := map[string]bool{}
	write := func(h *tar.Header, body []byte) {
		h.Format = tar.FormatPAX
		h.ModTime = time.Unix(rnd.Int63n(4e9)-1e8, rnd.Int63n(1e9))
		h.Size = int64(len(body))
		if rnd.Intn(4) == 0 && (h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeDir) {
			h.PAXRecords = map[string]string{"SCHILY.xattr.user.some": strings.Repeat("v", rnd.Intn(300))}
			if h.Typeflag == tar.TypeReg && rnd.Intn(2) == 0 {
				h.PAXRecords["SCHILY.xattr.security.capability"] = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
			}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	write(&tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	for range 150 {
		dir := dirs[rnd.Intn(len(dirs))]
		name := make([]byte, 1+rnd.Intn(rnd.Intn(250)+1))
		for i := range name {
			for name[i] == 0 || name[i] == '/' {
				name[i] = byte(rnd.Intn(256))
			}
		}
		// archive/tar's writer and GNU tar's reader each have their own ideas of these; they are tested elsewhere.
		if s := string(name); s == "." || s == ".." || strings.HasPrefix(s, ".wh.") || strings.ContainsAny(s, "\\\"") {
			continue
		}
		p := dir + string(name)
		if used[p] || len(p) > 3000 {
			continue
		}
		used[p] = true
		h := &tar.Header{Name: p, Mode: rnd.Int63n(0o10000), Uid: rnd.Intn(3) * 50000, Gid: rnd.Intn(100)}
		switch k := rnd.Intn(10); {
		case k < 2:
			h.Name, h.Typeflag = p+"/", tar.TypeDir
			dirs = append(dirs, p+"/")
			write(h, nil)
		case k == 2:
			h.Typeflag, h.Mode, h.Linkname = tar.TypeSymlink, 0o777, strings.Repeat("../x", 1+rnd.Intn(30))
			write(h, nil)
		case k == 3 && len(files) > 0:
			h.Typeflag, h.Linkname = tar.TypeLink, files[rnd.Intn(len(files))]
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
		case k == 4 && devices:
			h.Typeflag, h.Devmajor, h.Devminor = []byte{tar.TypeChar, tar.TypeBlock, tar.TypeFifo}[rnd.Intn(3)], rnd.Int63n(300), 1+rnd.Int63n(1000)
			if h.Typeflag == tar.TypeFifo {
				h.Devmajor, h.Devminor = 0, 0
			}
			write(h, nil)
		default:
			h.Typeflag = tar.TypeReg
			sizes := []int{0, 1, 63, 3900, 4032, 4095, 4096, 4097, 8192, 70000, 300000}
			body := make([]byte, sizes[rnd.Intn(len(sizes))])
			for i := 0; i < len(body); i += 4096 {
				if rnd.Intn(3) > 0 { // and the other blocks are zeros
					rnd.Read(body[i:min(i+1+rnd.Intn(4096), len(body))])
				}
			}
			files = append(files, p)
			write(h, body)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// GNU tar unpacks the layer, the kernel mounts it, and both have to show what the reader shows.
func TestTheTreeIsWhatGNUTarAndTheKernelSay(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("owners and devices can be unpacked by root alone")
	}
	for seed := range int64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			tarball := randomTar(t, rand.New(rand.NewSource(seed)), true)
			file, err := writeLayer(t, tarball)
			if err != nil {
				t.Fatal(err)
			}
			fsck(t, file)
			m, err := OpenLayer(file)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			got := listImage(t, m)
			got.compare(t, "index", listImage(t, merged(t, file)))

			t.Run("GNU tar", func(t *testing.T) {
				dir := t.TempDir()
				cmd := exec.Command("tar", "-C", dir, "--xattrs", "--xattrs-include=*", "--numeric-owner", "--delay-directory-restore", "-xpf", "-")
				cmd.Stdin = bytes.NewReader(tarball)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Skipf("it cannot unpack this here: %v: %s", err, out)
				}
				listDisk(t, dir).compare(t, "against GNU tar", got)
			})
			t.Run("kernel", func(t *testing.T) {
				listDisk(t, mountLayer(t, file)).compare(t, "against the kernel", got)
			})
		})
	}
}

// mountLayer mounts a layer by a loop device, or skips the test where the machine cannot.
func mountLayer(t *testing.T, file string) string {
	t.Helper()
	at := t.TempDir()
	if out, err := exec.Command("mount", "-t", "erofs", "-o", "loop,ro", file, at).CombinedOutput(); err != nil {
		t.Skipf("no loop device, or no erofs in the kernel: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return at
}

// What is read back is what archive/tar's own reader says of the same bytes; without root.
func TestTheTreeIsWhatTheTarSays(t *testing.T) {
	for seed := range int64(12) {
		tarball := randomTar(t, rand.New(rand.NewSource(100+seed)), true)
		file, err := writeLayer(t, tarball)
		if err != nil {
			t.Fatal(err)
		}
		m, err := OpenLayer(file)
		if err != nil {
			t.Fatal(err)
		}
		listTar(t, tarball).compare(t, fmt.Sprint("seed ", seed), listImage(t, m))
		m.Close()
	}
}

func listTar(t testing.TB, tarball []byte) listing {
	t.Helper()
	type file struct {
		st     unix.Stat_t
		body   []byte
		target string
		xattrs []string
	}
	files := map[string]*file{}
	for r := tar.NewReader(bytes.NewReader(tarball)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		p := path.Join("/", h.Name)
		if h.Typeflag == tar.TypeLink {
			f := files[path.Join("/", h.Linkname)]
			f.st.Nlink++
			files[p] = f
			continue
		}
		f := &file{target: h.Linkname}
		if f.body, err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
		kind := map[byte]uint32{tar.TypeReg: unix.S_IFREG, tar.TypeDir: unix.S_IFDIR, tar.TypeSymlink: unix.S_IFLNK, tar.TypeChar: unix.S_IFCHR,
			tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}[h.Typeflag]
		f.st.Mode, f.st.Uid, f.st.Gid, f.st.Size = kind|uint32(h.Mode), uint32(h.Uid), uint32(h.Gid), h.Size
		f.st.Rdev = unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
		f.st.Mtim = unix.Timespec{Sec: h.ModTime.Unix(), Nsec: int64(h.ModTime.Nanosecond())}
		setNlink(&f.st, 1)
		for k, v := range h.PAXRecords {
			if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
				f.xattrs = append(f.xattrs, fmt.Sprintf("%s=%q", name, v))
			}
		}
		files[p] = f
	}
	out := listing{}
	for p, f := range files {
		out[p] = line(&f.st, f.body, f.target, f.xattrs)
	}
	return out
}
