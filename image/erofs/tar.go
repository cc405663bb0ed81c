package erofs

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Info tells of a layer that was written.
type Info struct {
	Files int   // names in the layer, whiteouts included
	Bytes int64 // what the files hold, as the tar says
	Size  int64 // of the layer file
}

// ErrLayer says that a layer's tar is not one that can be kept: damaged, or hostile.
var ErrLayer = errors.New("bad layer")

// FromTar writes the layer file for an uncompressed tar stream, and reads the stream to its end. What dst held before
// is overwritten; the caller removes dst when there is an error, which wraps ErrLayer when the stream is to blame.
func FromTar(dst *os.File, r io.Reader) (Info, error) {
	b, err := newBuilder(dst, 0)
	if err != nil {
		return Info{}, err
	}
	t := &tarLayer{b: b, src: source{r: r}, root: newFolder()}
	t.root.nsec = impliedNsec
	tr := tar.NewReader(&t.src)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return Info{}, t.streamError(err)
		}
		if err := t.entry(h, tr); err != nil {
			return Info{}, fmt.Errorf("entry %s: %w", quote(h.Name), err)
		}
	}
	// Behind the end mark there is padding, which belongs to the digest.
	if _, err := io.Copy(io.Discard, &t.src); err != nil {
		return Info{}, t.streamError(err)
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

// quote is a name for a message. A tar may hold names of a megabyte.
func quote(name string) string {
	if len(name) > maxName {
		return fmt.Sprintf("%q… (%d bytes)", name[:maxName], len(name))
	}
	return strconv.Quote(name)
}

// source keeps the error of what the tar comes from apart from the tar's own.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// streamError says whether the tar is bad, or what it comes from failed. A stream that ends too early is a bad tar.
func (t *tarLayer) streamError(err error) error {
	if t.src.err != nil && !errors.Is(t.src.err, io.ErrUnexpectedEOF) {
		return t.src.err
	}
	return fmt.Errorf("%w: %w", ErrLayer, err)
}

// Limits on a layer, far above what images have. A tar can say a lot in few bytes, and each file costs memory while
// the layer is written.
const (
	maxDepth   = 8192    // levels of folders
	maxImplied = 1 << 18 // folders that have no entry
	maxFiles   = 1 << 23 // entries
)

type tarLayer struct {
	b         *builder
	src       source
	root      *node
	whiteouts []whiteout
	implied   int
	holes     int64 // what sparse entries hold
	buf       []byte
	info      Info
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
	if len(parts) > maxDepth {
		return nil, fmt.Errorf("%w: the name is %d folders deep, and %d are the most", ErrLayer, len(parts), maxDepth)
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
			if t.implied++; t.implied > maxImplied {
				return nil, fmt.Errorf("%w: more than %d folders have no entry of their own", ErrLayer, maxImplied)
			}
			c = newFolder()
			c.nsec = impliedNsec
			at.put(p, c)
		}
		if !c.isDir() {
			return nil, fmt.Errorf("%w: %s is no folder in this layer", ErrLayer, quote(strings.Join(parts[:i+1], "/")))
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
	if t.info.Files++; t.info.Files > maxFiles {
		return fmt.Errorf("%w: more than %d files", ErrLayer, maxFiles)
	}
	if len(parts) == 0 {
		if h.Typeflag != tar.TypeDir {
			return fmt.Errorf("%w: the layer's root is no folder", ErrLayer)
		}
		return t.dress(t.root, h)
	}
	if slices.ContainsFunc(parts[:len(parts)-1], func(p string) bool { return strings.HasPrefix(p, whiteoutMeta) }) {
		return nil // in a folder of aufs's own
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
		dir.put(name, n)
		return nil
	}
	if h.Typeflag == tar.TypeLink {
		return t.link(dir, name, h)
	}
	n := &node{}
	if err := t.dress(n, h); err != nil {
		return err
	}
	if n.mode&unix.S_IFMT == unix.S_IFREG {
		if isSparse(h) {
			if h.Size > maxHoles-t.holes {
				return fmt.Errorf("%w: sparse files of more than %d GiB", ErrLayer, maxHoles>>30)
			}
			t.holes += max(h.Size, 0)
		}
		t.info.Bytes += h.Size
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
	dir.put(name, n)
	return nil
}

// link gives a file of this layer another name.
func (t *tarLayer) link(dir *node, name string, h *tar.Header) error {
	parts, err := split(h.Linkname)
	if err != nil {
		return fmt.Errorf("hard link to %s: %w", quote(h.Linkname), err)
	}
	target := t.root
	for _, p := range parts {
		if target = target.children[p]; target == nil {
			return fmt.Errorf("%w: hard link to %s, which is not in this layer before it", ErrLayer, quote(h.Linkname))
		}
	}
	if target.isDir() {
		return fmt.Errorf("%w: hard link to %s, which is a folder", ErrLayer, quote(h.Linkname))
	}
	dir.put(name, target)
	return nil
}

// kindOf is the file type for an entry's, 0 for one that is not known.
func kindOf(typeflag byte) uint16 {
	switch typeflag {
	case tar.TypeReg, tar.TypeRegA, tar.TypeGNUSparse: //nolint:staticcheck // old archives have TypeRegA
		return unix.S_IFREG
	case tar.TypeDir:
		return unix.S_IFDIR
	case tar.TypeSymlink:
		return unix.S_IFLNK
	case tar.TypeChar:
		return unix.S_IFCHR
	case tar.TypeBlock:
		return unix.S_IFBLK
	case tar.TypeFifo:
		return unix.S_IFIFO
	}
	return 0
}

// dress gives a node what the header says of it.
func (t *tarLayer) dress(n *node, h *tar.Header) error {
	kind := kindOf(h.Typeflag)
	if kind == 0 {
		return fmt.Errorf("%w: entries of type %q are not known", ErrLayer, string(h.Typeflag))
	}
	if h.Uid < 0 || h.Gid < 0 || int64(h.Uid) >= 1<<32-1 || int64(h.Gid) >= 1<<32-1 {
		return fmt.Errorf("%w: owner %d:%d", ErrLayer, h.Uid, h.Gid)
	}
	n.mode = kind | uint16(h.Mode&0o7777)
	n.uid, n.gid = uint32(h.Uid), uint32(h.Gid)
	n.mtime, n.nsec = h.ModTime.Unix(), uint32(h.ModTime.Nanosecond())
	if n.mtime == 0 && n.nsec == impliedNsec {
		n.nsec = 0
	}
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
		// Those of name spaces that Linux has no file system for (a Mac's com.apple.*) are left out, as docker does.
		if !ok || strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") || !knownXattr(name) {
			continue
		}
		if n.xattrs == nil {
			n.xattrs = map[string]string{}
		}
		n.xattrs[name] = v
	}
	if opaque != "" {
		markOpaque(n)
	}
	if _, _, err := encodeXattrs(n.xattrs); err != nil {
		return fmt.Errorf("%w: %w", ErrLayer, err)
	}
	return nil
}
