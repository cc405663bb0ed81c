package erofs

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Info tells of a layer that was written.
type Info struct {
	Files int   // names in the layer, whiteouts included
	Bytes int64 // what the files hold, as the tar says
	Size  int64 // of the layer file
}

// Whiteouts, as the OCI image spec writes them in a tar.
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	whiteoutMeta   = ".wh..wh." // other marks of aufs, which say nothing to us
)

// ErrLayer says that a layer's tar is not one that can be kept: damaged, or hostile.
var ErrLayer = errors.New("bad layer")

// FromTar writes the layer file for an uncompressed tar stream, and reads the stream to its end. What dst held before
// is overwritten; the caller removes dst when there is an error, which wraps ErrLayer when the stream is to blame.
func FromTar(dst *os.File, r io.Reader) (Info, error) {
	b, err := newBuilder(dst, 0)
	if err != nil {
		return Info{}, err
	}
	t := &tarLayer{b: b, root: &node{mode: unix.S_IFDIR | 0o755, nsec: impliedNsec, children: map[string]*node{}}, whiteouts: map[*node][]string{}}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return Info{}, streamError(err)
		}
		if err := t.entry(h, tr); err != nil {
			return Info{}, fmt.Errorf("entry %q: %w", h.Name, err)
		}
	}
	// Behind the end mark there is padding, which belongs to the digest.
	if _, err := io.Copy(io.Discard, r); err != nil {
		return Info{}, streamError(err)
	}
	if err := t.applyWhiteouts(); err != nil {
		return Info{}, err
	}
	if err := t.b.finish(t.root, nil, 0); err != nil {
		return Info{}, err
	}
	t.info.Size = t.b.end
	return t.info, nil
}

// streamError tells damage of the tar from damage of what it comes from.
func streamError(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", ErrLayer, err)
	}
	return err
}

type tarLayer struct {
	b         *builder
	root      *node
	whiteouts map[*node][]string // by folder
	info      Info
}

func newFolder() *node {
	return &node{mode: unix.S_IFDIR | 0o755, children: map[string]*node{}}
}

// split cleans an entry's name: "./a//b/" is a, b. A name that climbs is refused.
func split(name string) ([]string, error) {
	var parts []string
	for _, p := range strings.Split(name, "/") {
		switch {
		case p == "" || p == ".":
		case p == "..":
			return nil, fmt.Errorf("%w: the name leads out of the layer with ..", ErrLayer)
		case len(p) > maxName:
			return nil, fmt.Errorf("%w: a part of the name is longer than %d bytes", ErrLayer, maxName)
		case strings.IndexByte(p, 0) >= 0:
			return nil, fmt.Errorf("%w: the name holds a NUL byte", ErrLayer)
		default:
			parts = append(parts, p)
		}
	}
	return parts, nil
}

// parent finds the folder for an entry and makes what is missing of it. A name that leads through something that is no
// folder is refused: following a symlink is how archives climb out.
func (t *tarLayer) parent(parts []string) (*node, error) {
	at := t.root
	for i, p := range parts {
		c, ok := at.children[p]
		if !ok {
			c = newFolder()
			c.nsec = impliedNsec
			at.children[p] = c
		}
		if !c.isDir() {
			return nil, fmt.Errorf("%w: %q is no folder in this layer", ErrLayer, strings.Join(parts[:i+1], "/"))
		}
		at = c
	}
	return at, nil
}

func (t *tarLayer) entry(h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	parts, err := split(h.Name)
	if err != nil {
		return err
	}
	t.info.Files++
	if len(parts) == 0 {
		if h.Typeflag != tar.TypeDir {
			return fmt.Errorf("%w: the layer's root is no folder", ErrLayer)
		}
		return t.dress(t.root, h)
	}
	dir, err := t.parent(parts[:len(parts)-1])
	if err != nil {
		return err
	}
	name := parts[len(parts)-1]
	if strings.HasPrefix(name, whiteoutPrefix) {
		return t.whiteout(dir, name)
	}
	old := dir.children[name]
	if h.Typeflag == tar.TypeDir {
		if old != nil && old.isDir() {
			return t.dress(old, h) // it was there for the sake of what is in it
		}
		n := newFolder()
		if err := t.dress(n, h); err != nil {
			return err
		}
		t.replace(dir, name, old, n)
		return nil
	}
	if h.Typeflag == tar.TypeLink {
		return t.link(dir, name, old, h)
	}
	n := &node{nlink: 1}
	if err := t.dress(n, h); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeRegA { //nolint:staticcheck // old archives have it
		if err := t.regular(n, r, h.Size); err != nil {
			return err
		}
	} else {
		if h.Typeflag == tar.TypeSymlink && (h.Linkname == "" || len(h.Linkname) >= unix.PathMax) {
			return fmt.Errorf("%w: symlink to a name of %d bytes", ErrLayer, len(h.Linkname))
		}
		if err := t.b.writeSmall(n, []byte(n.target)); err != nil {
			return err
		}
	}
	t.replace(dir, name, old, n)
	return nil
}

// replace puts n at a name; of two entries of one name the later counts.
func (t *tarLayer) replace(dir *node, name string, old, n *node) {
	if old != nil && !old.isDir() {
		old.nlink--
	}
	dir.children[name] = n
}

func (t *tarLayer) link(dir *node, name string, old *node, h *tar.Header) error {
	parts, err := split(h.Linkname)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", h.Linkname, err)
	}
	target := t.root
	for _, p := range parts {
		if target = target.children[p]; target == nil {
			return fmt.Errorf("%w: hard link to %q, which is not in this layer before it", ErrLayer, h.Linkname)
		}
	}
	if target.isDir() {
		return fmt.Errorf("%w: hard link to %q, which is a folder", ErrLayer, h.Linkname)
	}
	if target == old {
		return nil
	}
	target.nlink++
	t.replace(dir, name, old, target)
	return nil
}

// dress gives a node what the header says of it.
func (t *tarLayer) dress(n *node, h *tar.Header) error {
	types := map[byte]uint16{tar.TypeReg: unix.S_IFREG, tar.TypeRegA: unix.S_IFREG, tar.TypeDir: unix.S_IFDIR, tar.TypeSymlink: unix.S_IFLNK, //nolint:staticcheck
		tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}
	kind, ok := types[h.Typeflag]
	if !ok {
		return fmt.Errorf("%w: entries of type %q are not known", ErrLayer, string(h.Typeflag))
	}
	if h.Uid < 0 || h.Gid < 0 || int64(h.Uid) >= 1<<32-1 || int64(h.Gid) >= 1<<32-1 {
		return fmt.Errorf("%w: owner %d:%d", ErrLayer, h.Uid, h.Gid)
	}
	n.mode = kind | uint16(h.Mode&0o7777)
	n.uid, n.gid = uint32(h.Uid), uint32(h.Gid)
	n.mtime, n.nsec = h.ModTime.Unix(), uint32(h.ModTime.Nanosecond())
	n.target = ""
	switch kind {
	case unix.S_IFLNK:
		n.target = h.Linkname
		n.mode = kind | 0o777
	case unix.S_IFCHR, unix.S_IFBLK:
		if h.Devmajor < 0 || h.Devmajor >= 1<<12 || h.Devminor < 0 || h.Devminor >= 1<<20 {
			return fmt.Errorf("%w: device %d:%d", ErrLayer, h.Devmajor, h.Devminor)
		}
		n.rdev = encodeDev(uint32(h.Devmajor), uint32(h.Devminor))
	}
	opaque := n.xattrs[opaqueName]
	n.xattrs = nil
	for k, v := range h.PAXRecords {
		name, ok := strings.CutPrefix(k, "SCHILY.xattr.")
		// The overlay's own attributes steer it; an image that brings some would steer it too.
		if !ok || strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		if n.xattrs == nil {
			n.xattrs = map[string]string{}
		}
		n.xattrs[name] = v
	}
	if opaque != "" {
		t.markOpaque(n)
	}
	if _, _, err := encodeXattrs(n.xattrs); err != nil {
		return fmt.Errorf("%w: %w", ErrLayer, err)
	}
	return nil
}

func (t *tarLayer) markOpaque(n *node) {
	n.xattrs = maps.Clone(n.xattrs)
	if n.xattrs == nil {
		n.xattrs = map[string]string{}
	}
	n.xattrs[opaqueName] = "y"
}

func (t *tarLayer) whiteout(dir *node, name string) error {
	switch {
	case name == whiteoutOpaque:
		t.markOpaque(dir)
	case strings.HasPrefix(name, whiteoutMeta):
	default:
		hidden := strings.TrimPrefix(name, whiteoutPrefix)
		if hidden == "" || hidden == "." || hidden == ".." {
			return fmt.Errorf("%w: whiteout of nothing", ErrLayer)
		}
		t.whiteouts[dir] = append(t.whiteouts[dir], hidden)
	}
	return nil
}

// applyWhiteouts puts the marks into the folders at the end, for they are about lower layers only, wherever they stand
// in the tar: what the same layer has at the name stays, and a folder there hides the lower one's entries.
func (t *tarLayer) applyWhiteouts() error {
	for dir, names := range t.whiteouts {
		for _, name := range names {
			switch c := dir.children[name]; {
			case c == nil:
				n := &node{mode: unix.S_IFCHR, nlink: 1}
				if err := t.b.writeSmall(n, nil); err != nil {
					return err
				}
				dir.children[name] = n
			case c.isDir():
				t.markOpaque(c)
			}
		}
	}
	return nil
}

var zeros [blockSize]byte

// regular writes a file's body as it comes. Blocks of zeros are not written; where a whole chunk is zeros it has no
// place in the file at all.
func (t *tarLayer) regular(n *node, r io.Reader, size int64) error {
	if size < 0 {
		return fmt.Errorf("%w: size %d", ErrLayer, size)
	}
	t.info.Bytes += size
	n.size = uint64(size)
	if size < blockSize {
		body := make([]byte, size)
		if _, err := io.ReadFull(r, body); err != nil {
			return streamError(unexpected(err))
		}
		return t.b.writeSmall(n, body)
	}
	// At most about 4096 chunks, so that the table of a huge file of nothing stays small.
	bits := blockBits
	for size>>bits > 4096 {
		bits++
	}
	chunk := int64(1) << bits
	var starts []uint32 // of chunks
	holes := false
	buf := make([]byte, 64<<10)
	place := int64(-1) // where the chunk under way is, when it has a place
	for off := int64(0); off < size; {
		want := min(int64(len(buf)), size-off)
		want = min(want, chunk-off%chunk)
		if _, err := io.ReadFull(r, buf[:want]); err != nil {
			return streamError(unexpected(err))
		}
		if off%chunk == 0 {
			place = -1
			starts = append(starts, noBlock)
		}
		// Runs of blocks that hold something, each in one write.
		for i := int64(0); i < want; {
			n := min(blockSize, want-i)
			if bytes.Equal(buf[i:i+n], zeros[:n]) {
				i += n
				continue
			}
			j := i + n
			for j < want {
				n := min(blockSize, want-j)
				if bytes.Equal(buf[j:j+n], zeros[:n]) {
					break
				}
				j += n
			}
			if place < 0 {
				at, err := t.b.body(min(chunk, size-off/chunk*chunk))
				if err != nil {
					return err
				}
				place = at
				starts[len(starts)-1] = uint32(at >> blockBits)
			}
			if err := t.b.put(buf[i:j], place+off%chunk+i); err != nil {
				return err
			}
			i = j
		}
		off += want
	}
	// Chunks that lie one behind the other, which is the rule, are one run of blocks.
	for i, s := range starts {
		if s == noBlock || i > 0 && s != starts[i-1]+uint32(chunk>>blockBits) {
			holes = true
		}
	}
	if !holes {
		return t.b.write(n, layoutPlain, starts[0], nil)
	}
	t.b.chunks = true
	table := make([]byte, 0, len(starts)*chunkEntry)
	for _, s := range starts {
		table = append(table, 0, 0, 0, 0)
		table = le.AppendUint32(table, s)
	}
	return t.b.write(n, layoutChunk, uint32(bits-blockBits)|chunkIndexes, table)
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
