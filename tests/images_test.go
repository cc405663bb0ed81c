package tests

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/compression"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const imagePath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// pushImages makes the images of the stories and puts them where the stories look for them. What cannot be made here is
// noted with its reason, and the stories that need it are skipped.
func pushImages() error {
	shared.images = map[string]string{}
	for _, image := range []struct {
		name string
		push func() error
	}{
		{"busybox", pushBusybox}, {"shapes", pushShapes}, {"hostile", pushHostile}, {"zeros", pushZeros}, {"debian", pushDebian},
	} {
		shared.images[image.name] = ""
		if err := image.push(); err != nil {
			var left leftOut
			if !errors.As(err, &left) {
				return fmt.Errorf("image %s: %w", image.name, err)
			}
			shared.images[image.name] = left.Error()
		}
	}
	return nil
}

// leftOut is the reason why an image is not made on this machine.
type leftOut string

func (l leftOut) Error() string { return string(l) }

// push puts an image into the registry, under library/.
func push(img v1.Image, as string) error { return pushTo(shared.registry+"/library/"+as, img) }

func pushTo(ref string, img v1.Image) error {
	r, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		return err
	}
	return remote.Write(r, img)
}

// image is an image of layers for this machine.
func image(config v1.Config, layers ...v1.Layer) (v1.Image, error) {
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		return nil, err
	}
	return forMachine(img, config, machine)
}

var machine = v1.Platform{OS: "linux", Architecture: runtime.GOARCH}

func forMachine(img v1.Image, config v1.Config, p v1.Platform) (v1.Image, error) {
	f, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	f = f.DeepCopy()
	f.Config, f.OS, f.Architecture, f.Created = config, p.OS, p.Architecture, v1.Time{Time: time.Unix(1700000000, 0)}
	return mutate.ConfigFile(img, f)
}

func opener(b []byte) tarball.Opener {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}

// entry is one entry of a layer's tar; its text is the body of a file or the target of a link.
type entry struct {
	tar.Header
	text string
}

func file(name string, mode int64, text string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, text}
}
func dir(name string, mode int64) entry {
	return entry{tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}, ""}
}
func symlink(name, target string) entry {
	return entry{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, ""}
}
func hardLink(name, target string) entry {
	return entry{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}, ""}
}
func (e entry) owned(uid, gid int) entry {
	e.Uid, e.Gid = uid, gid
	return e
}
func (e entry) with(xattr, value string) entry {
	e.PAXRecords = map[string]string{"SCHILY.xattr." + xattr: value}
	return e
}

// layerOf makes a gzip layer.
func layerOf(entries ...entry) (v1.Layer, error) {
	b, err := tarOf(entries...)
	if err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(opener(b))
}

func tarOf(entries ...entry) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1600000000, 0)
		}
		h.Size = int64(len(e.text))
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, e.text); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}

// pushBusybox makes an image of Debian's static busybox, in the kinds of media that registries give, and with the
// settings that an image can have.
func pushBusybox() error {
	program := "/bin/busybox"
	if !static(program) {
		return leftOut("there is no static " + program + ": install the package busybox-static")
	}
	body, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	applets, err := exec.Command(program, "--list").Output()
	if err != nil {
		return err
	}
	entries := []entry{
		dir("bin", 0o755), file("bin/busybox", 0o755, string(body)), dir("etc", 0o755), dir("root", 0o700), dir("usr", 0o755),
		dir("dev", 0o755), dir("proc", 0o755), dir("sys", 0o755), dir("home", 0o755), dir("home/user", 0o755).owned(1000, 1000), dir("tmp", 0o1777),
		symlink("sbin", "bin"), symlink("usr/bin", "../bin"), symlink("usr/sbin", "../bin"),
		file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:a user:/home/user:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
		file("etc/group", 0o644, "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n"),
		file("etc/plain", 0o644, "not a program\n"),
	}
	for _, a := range strings.Fields(string(applets)) {
		if a != "busybox" {
			entries = append(entries, symlink("bin/"+a, "busybox"))
		}
	}
	b, err := tarOf(entries...)
	if err != nil {
		return err
	}
	gz, err := tarball.LayerFromOpener(opener(b))
	if err != nil {
		return err
	}
	zst, err := tarball.LayerFromOpener(opener(b), tarball.WithCompression(compression.ZStd), tarball.WithMediaType(types.OCILayerZStd))
	if err != nil {
		return err
	}
	config := v1.Config{Cmd: []string{"sh"}, Env: []string{imagePath}}
	docker, err := image(config, gz)
	if err != nil {
		return err
	}
	zstd, err := image(config, zst)
	if err != nil {
		return err
	}
	zstd = mutate.ConfigMediaType(mutate.MediaType(zstd, types.OCIManifestSchema1), types.OCIConfigJSON)
	note, err := layerOf(file("etc/note", 0o644, "of the second layer\n"))
	if err != nil {
		return err
	}
	second, err := image(config, gz, note, note) // one layer twice is fair
	if err != nil {
		return err
	}
	settings, err := image(v1.Config{
		Entrypoint: []string{"/bin/echo", "entry"}, Cmd: []string{"from", "image"}, Env: []string{imagePath, "COLOR=green", "SHAPE=round"},
		User: "user", WorkingDir: "/work/here", Labels: map[string]string{"kind": "example"}, StopSignal: "SIGUSR1",
		Volumes: map[string]struct{}{"/home/user": {}}, ExposedPorts: map[string]struct{}{"8080/tcp": {}},
	}, gz)
	if err != nil {
		return err
	}
	for as, img := range map[string]v1.Image{"busybox:latest": docker, "busybox:zstd": zstd, "busybox:second": second, "settings": settings} {
		if err := push(img, as); err != nil {
			return err
		}
	}

	// An index for two machines, and one for a machine that nobody has here.
	other := v1.Platform{OS: "linux", Architecture: "s390x"}
	foreign, err := forMachine(docker, v1.Config{Cmd: []string{"foreign"}}, other)
	if err != nil {
		return err
	}
	both := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: foreign, Descriptor: v1.Descriptor{Platform: &other}},
		mutate.IndexAddendum{Add: docker, Descriptor: v1.Descriptor{Platform: &machine}})
	alien := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: foreign, Descriptor: v1.Descriptor{Platform: &other}})
	for as, ix := range map[string]v1.ImageIndex{"multi": both, "alien": alien} {
		r, err := name.ParseReference(shared.registry+"/library/"+as, name.Insecure)
		if err != nil {
			return err
		}
		if err := remote.WriteIndex(r, ix); err != nil {
			return err
		}
	}
	// The registry behind the faults has it too. Its certificate is asked for nothing there: it is filled by http.
	return pushTo(shared.faults+"/busybox", docker)
}

// static says whether a program needs no libraries.
func static(program string) bool {
	f, err := elf.Open(program)
	if err != nil {
		return false
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}

// pushShapes makes three layers of everything that a layer can say.
func pushShapes() error {
	if why := shared.images["busybox"]; why != "" {
		return leftOut(why)
	}
	base, err := pulled("busybox")
	if err != nil {
		return err
	}
	bottom := []entry{
		dir("d", 0o755), dir("d/gone", 0o755), file("d/gone/inside", 0o644, "x"), file("d/gone-file", 0o644, "x"), file("d/stays", 0o644, "stays\n"),
		dir("d/opaque", 0o755), file("d/opaque/old", 0o644, "x"), dir("d/becomes-file", 0o755), file("d/becomes-file/x", 0o644, "x"),
		file("d/becomes-dir", 0o644, "x"), file("d/replaced", 0o600, "old"),
		file("links/one", 0o644, "linked\n"), hardLink("links/two", "links/one"), hardLink("links/three", "links/one"),
		symlink("links/sym", "one"), symlink("links/dangling", "nowhere"), symlink("links/absolute", "/d/stays"),
		file("modes/setuid", 0o4755, "x"), file("modes/setgid", 0o2755, "x").owned(0, 2000), dir("modes/sticky", 0o1777),
		file("modes/owned", 0o640, "x").owned(1000, 2000),
		file("odd/latin\xff\xfename", 0o644, "bytes\n"), file("odd/"+strings.Repeat("n", 255), 0o644, "long\n"), file("odd/new\nline", 0o644, "x"),
		entry{tar.Header{Typeflag: tar.TypeChar, Name: "devices/null", Mode: 0o666, Devmajor: 1, Devminor: 3}, ""},
		entry{tar.Header{Typeflag: tar.TypeBlock, Name: "devices/block", Mode: 0o660, Devmajor: 7, Devminor: 0}, ""},
		entry{tar.Header{Typeflag: tar.TypeFifo, Name: "devices/fifo", Mode: 0o622}, ""},
		file("xattrs/user", 0o644, "x").with("user.color", "green"),
		file("times/old", 0o644, "x"),
		file("empty", 0o644, ""), file("size/4095", 0o644, strings.Repeat("a", 4095)), file("size/4096", 0o644, strings.Repeat("b", 4096)),
		file("size/4097", 0o644, strings.Repeat("c", 4097)),
		file("size/holes", 0o644, strings.Repeat("\x00", 1<<20)+"end"),
		file("deep/"+strings.Repeat("d/", 800)+"leaf", 0o644, "deep\n"),
	}
	middle := []entry{
		file("d/.wh.gone", 0o644, ""), file("d/.wh.gone-file", 0o644, ""),
		file("d/opaque/.wh..wh..opq", 0o644, ""), file("d/opaque/new", 0o644, "new\n"),
		file("d/becomes-file", 0o644, "file\n"), dir("d/becomes-dir", 0o755), file("d/becomes-dir/x", 0o644, "dir\n"),
		file("d/replaced", 0o644, "new\n"),
	}
	top := []entry{dir("d/gone", 0o755), file("d/gone/again", 0o644, "again\n")}
	layers := make([]v1.Layer, 0, 3)
	for _, entries := range [][]entry{bottom, middle, top} {
		l, err := layerOf(entries...)
		if err != nil {
			return err
		}
		layers = append(layers, l)
	}
	img, err := mutate.AppendLayers(base, layers...)
	if err != nil {
		return err
	}
	return push(img, "shapes")
}

// pushHostile makes images that want out of their folder, or are not what they say.
func pushHostile() error {
	for as, entries := range map[string][]entry{
		"dotdot":   {file("../../../../../../../../tmp/moss-escape/evil", 0o644, "evil")},
		"absolute": {file("/tmp/moss-escape/evil", 0o644, "evil")},
		"symlink":  {symlink("out", "/tmp/moss-escape"), file("out/evil", 0o644, "evil")},
		"hardlink": {hardLink("stolen", "../../../../../../etc/passwd")},
	} {
		l, err := layerOf(entries...)
		if err != nil {
			return err
		}
		img, err := image(v1.Config{Cmd: []string{"x"}}, l)
		if err != nil {
			return err
		}
		if err := push(img, "hostile-"+as); err != nil {
			return err
		}
	}
	if shared.images["busybox"] == "" {
		if err := pushLinks(); err != nil {
			return err
		}
	}
	// A tar that promises more than it has, and one that is none.
	whole, err := tarOf(file("big", 0o644, strings.Repeat("x", 4096)))
	if err != nil {
		return err
	}
	promise := bytes.Clone(whole)
	copy(promise[124:136], "77777777777\x00") // 8 GiB
	sum := 0
	copy(promise[148:156], "        ")
	for _, c := range promise[:512] {
		sum += int(c)
	}
	copy(promise[148:156], fmt.Sprintf("%06o\x00 ", sum))
	for as, b := range map[string][]byte{"promise": promise, "nonsense": bytes.Repeat([]byte("no tar at all. "), 1000)} {
		l, err := tarball.LayerFromOpener(opener(b))
		if err != nil {
			return err
		}
		img, err := image(v1.Config{Cmd: []string{"x"}}, l)
		if err != nil {
			return err
		}
		if err := push(img, "hostile-"+as); err != nil {
			return err
		}
	}
	// A layer that is not the one whose digest the configuration names.
	l, err := layerOf(file("x", 0o644, "x"))
	if err != nil {
		return err
	}
	img, err := image(v1.Config{Cmd: []string{"x"}}, l)
	if err != nil {
		return err
	}
	f, err := img.ConfigFile()
	if err != nil {
		return err
	}
	f = f.DeepCopy()
	f.RootFS.DiffIDs[0] = v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("1", 64)}
	if img, err = mutate.ConfigFile(img, f); err != nil {
		return err
	}
	return push(img, "hostile-diffid")
}

// pushLinks makes an image whose folders are links out of it.
func pushLinks() error {
	base, err := pulled("busybox")
	if err != nil {
		return err
	}
	const out = "/tmp/moss-escape"
	l, err := layerOf(file(".wh.etc", 0o644, ""), file(".wh.dev", 0o644, ""), file(".wh.proc", 0o644, ""), file(".wh.tmp", 0o644, ""))
	if err != nil {
		return err
	}
	m, err := layerOf(symlink("etc", out+"/etc"), symlink("dev", out), symlink("proc", "../../../../.."+out), symlink("tmp", "/proc/self/cwd"), symlink("through", out))
	if err != nil {
		return err
	}
	img, err := mutate.AppendLayers(base, l, m)
	if err != nil {
		return err
	}
	return push(img, "hostile-links")
}

// pulled is an image of the registry.
func pulled(image string) (v1.Image, error) {
	ref, err := name.ParseReference(shared.registry+"/library/"+image, name.Insecure)
	if err != nil {
		return nil, err
	}
	return remote.Image(ref)
}

// zeros reads like a tar of one file of 10 GiB, all of it zero.
type zeros struct {
	io.Reader
}

func (zeros) Close() error { return nil }

const zerosSize = 10 << 30

func openZeros() (io.ReadCloser, error) {
	var head bytes.Buffer
	w := tar.NewWriter(&head)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "zeros", Mode: 0o644, Size: zerosSize, ModTime: time.Unix(0, 0), Format: tar.FormatGNU}); err != nil {
		return nil, err
	}
	return zeros{io.MultiReader(&head, io.LimitReader(nothing{}, zerosSize+1024))}, nil
}

type nothing struct{}

func (nothing) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// pushZeros makes a layer of 10 GiB of zeros, which is small only as long as it is packed.
func pushZeros() error {
	if testing.Short() {
		return leftOut("left out by -short")
	}
	if why := shared.images["busybox"]; why != "" {
		return leftOut(why)
	}
	base, err := pulled("busybox")
	if err != nil {
		return err
	}
	l, err := tarball.LayerFromOpener(openZeros, tarball.WithCompression(compression.ZStd), tarball.WithMediaType(types.OCILayerZStd), tarball.WithCompressedCaching)
	if err != nil {
		return err
	}
	img, err := mutate.AppendLayers(base, l)
	if err != nil {
		return err
	}
	return push(img, "zeros")
}

// pushDebian makes the image of the root file system that tests/setup.sh keeps.
func pushDebian() error {
	if testing.Short() {
		return leftOut("left out by -short")
	}
	path := filepath.Join(shared.cache, "debian.tar.gz")
	if _, err := os.Stat(path); err != nil {
		return leftOut("there is no Debian root file system: make test as root makes one (" + err.Error() + ")")
	}
	l, err := tarball.LayerFromFile(path)
	if err != nil {
		return err
	}
	img, err := image(v1.Config{Cmd: []string{"bash"}, Env: []string{imagePath}}, l)
	if err != nil {
		return err
	}
	return push(img, "debian")
}
