package erofs

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Image is a tree: a layer, or the merged index of an image with the layer files behind it. It is safe for concurrent
// use. Nodes are numbered as in EROFS. Close it only when nothing can call it any more: its strings lie in the map.
type Image struct {
	name    string
	meta    []byte // the file, mapped
	super   super
	devices []*os.File // bodies: the file itself for a layer, the layers for an index
	own     *os.File   // a layer's own file
	xattrs  bool
}

// OpenLayer opens one layer file, whiteouts and all.
func OpenLayer(path string) (*Image, error) {
	return open(path, nil)
}

// Open opens the index of an image. layers are the files that it was merged from, in the same order. It takes the same
// time however many files the image has.
func Open(index string, layers []string) (*Image, error) {
	return open(index, layers)
}

func open(path string, layers []string) (_ *Image, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	m := &Image{name: path, own: f}
	defer func() {
		if err != nil {
			m.Close()
		}
	}()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size := st.Size()
	if size < blockSize || size != int64(int(size)) {
		return nil, fmt.Errorf("%s: %w: %d bytes", path, ErrFormat, size)
	}
	if m.meta, err = unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map %s: %w", path, err)
	}
	if m.super, err = decodeSuper(m.meta); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if int64(m.super.blocks)<<blockBits != size {
		return nil, fmt.Errorf("%s: %w: %d bytes, and it should have %d", path, ErrFormat, size, int64(m.super.blocks)<<blockBits)
	}
	if int(m.super.devices) != len(layers) {
		return nil, fmt.Errorf("%s: %w: made of %d layers, and given %d", path, ErrFormat, m.super.devices, len(layers))
	}
	m.xattrs = m.super.name != without
	for i, l := range layers {
		d, err := os.Open(l)
		if err != nil {
			return nil, err
		}
		m.devices = append(m.devices, d)
		at := int(m.super.deviceSlotOff)*deviceSlot + i*deviceSlot
		if at+deviceSlot > len(m.meta) {
			return nil, fmt.Errorf("%s: %w: table of layers", path, ErrFormat)
		}
		want := int64(le.Uint32(m.meta[at+64:])) << blockBits
		if st, err := d.Stat(); err != nil || st.Size() != want {
			return nil, fmt.Errorf("%s: %w: it should have %d bytes", l, ErrFormat, want)
		}
	}
	if _, errno := m.inode(m.super.rootNid); errno != 0 {
		return nil, fmt.Errorf("%s: %w: no root", path, ErrFormat)
	}
	return m, nil
}

// Close gives everything back.
func (m *Image) Close() error {
	var errs []error
	if m.meta != nil {
		errs = append(errs, unix.Munmap(m.meta))
		m.meta = nil
	}
	for _, f := range append(m.devices, m.own) {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	m.devices, m.own = nil, nil
	return errors.Join(errs...)
}

// inode reads a node's metadata. A number that leads nowhere is EIO: only a damaged file has such.
func (m *Image) inode(nid uint64) (inode, syscall.Errno) {
	var n inode
	if nid > uint64(len(m.meta))/slotSize {
		return n, syscall.EIO
	}
	at := nid * slotSize
	if at < rootOffset || at+inodeSize > uint64(len(m.meta)) {
		return n, syscall.EIO
	}
	b := m.meta[at : at+inodeSize]
	if le.Uint16(b)&1 == 0 {
		return n, syscall.EIO // a compact inode: we write none
	}
	n.decode(b)
	if n.size > 1<<62 {
		return n, syscall.EIO
	}
	return n, 0
}

// behind is what lies behind an inode and its attributes.
func behind(nid uint64, n *inode) uint64 {
	return nid*slotSize + inodeSize + uint64(n.xattrSize())
}

// span is a piece of the mapped file, nil when it is not all there.
func (m *Image) span(at, n uint64) []byte {
	if at > uint64(len(m.meta)) || n > uint64(len(m.meta))-at {
		return nil
	}
	return m.meta[at : at+n]
}

// Root is the number of the top folder.
func (m *Image) Root() uint64 { return m.super.rootNid }

// Stat fills in st.
func (m *Image) Stat(nid uint64, st *unix.Stat_t) syscall.Errno {
	n, errno := m.inode(nid)
	if errno != 0 {
		return errno
	}
	*st = unix.Stat_t{}
	st.Ino, st.Mode, st.Uid, st.Gid = nid, uint32(n.mode), n.uid, n.gid
	setNlink(st, n.nlink)
	st.Size = int64(n.size)
	st.Blksize = blockSize
	st.Blocks = int64((n.size + 511) / 512)
	switch n.mode & unix.S_IFMT {
	case unix.S_IFCHR, unix.S_IFBLK:
		major, minor := n.u>>8&0xfff, n.u&0xff|n.u>>12&^0xff
		st.Rdev, st.Size, st.Blocks = unix.Mkdev(major, minor), 0, 0
	case unix.S_IFREG:
		if n.layout == layoutChunk {
			st.Blocks = m.allocated(nid, &n)
		}
	}
	t := unix.NsecToTimespec(0)
	t.Sec, t.Nsec = n.mtime, int64(n.nsec)
	st.Mtim, st.Ctim, st.Atim = t, t, t
	return 0
}

// allocated counts the 512-byte blocks of a file in chunks.
func (m *Image) allocated(nid uint64, n *inode) (blocks int64) {
	bits := uint(blockBits) + uint(n.u&0x1f)
	chunks := (n.size + 1<<bits - 1) >> bits
	table := m.span(uint64(align(int64(behind(nid, n)), chunkEntry)), chunks*chunkEntry)
	for i := uint64(0); i < chunks && table != nil; i++ {
		if le.Uint32(table[i*chunkEntry+4:]) != noBlock {
			blocks += int64(min(n.size-i<<bits, 1<<bits)+511) / 512
		}
	}
	return blocks
}

// text is a string over the map, without a copy.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// Readlink is a symlink's target.
func (m *Image) Readlink(nid uint64) (string, syscall.Errno) {
	n, errno := m.inode(nid)
	if errno != 0 {
		return "", errno
	}
	if n.mode&unix.S_IFMT != unix.S_IFLNK {
		return "", syscall.EINVAL
	}
	b := m.content(nid, &n)
	if b == nil || n.size >= unix.PathMax {
		return "", syscall.EIO
	}
	return text(b), 0
}

// content is the whole of a body that lies in this very file: a symlink's, a folder's.
func (m *Image) content(nid uint64, n *inode) []byte {
	switch n.layout {
	case layoutPlain:
		return m.span(uint64(n.u)<<blockBits, n.size)
	case layoutInline:
		if n.size <= blockSize {
			return m.span(behind(nid, n), n.size)
		}
	}
	return nil
}

// Read reads a file's content: as much of dst as there is, and 0 behind its end.
func (m *Image) Read(nid uint64, dst []byte, off int64) (int, syscall.Errno) {
	n, errno := m.inode(nid)
	if errno != 0 {
		return 0, errno
	}
	if n.mode&unix.S_IFMT != unix.S_IFREG || off < 0 {
		return 0, syscall.EINVAL
	}
	if uint64(off) >= n.size {
		return 0, 0
	}
	dst = dst[:min(uint64(len(dst)), n.size-uint64(off))]
	switch n.layout {
	case layoutPlain:
		return m.pread(0, dst, int64(n.u)<<blockBits+off)
	case layoutInline:
		return m.pread(0, dst, int64(behind(nid, &n))+off)
	case layoutChunk:
		return m.readChunks(nid, &n, dst, off)
	}
	return 0, syscall.EIO
}

func (m *Image) readChunks(nid uint64, n *inode, dst []byte, off int64) (int, syscall.Errno) {
	bits := uint(blockBits) + uint(n.u&0x1f)
	table := uint64(align(int64(behind(nid, n)), chunkEntry))
	done := 0
	for done < len(dst) {
		at := uint64(off) + uint64(done)
		entry := m.span(table+at>>bits*chunkEntry, chunkEntry)
		if entry == nil {
			return 0, syscall.EIO
		}
		in := at & (1<<bits - 1)
		part := dst[done:]
		part = part[:min(uint64(len(part)), 1<<bits-in)]
		if block := le.Uint32(entry[4:]); block == noBlock {
			clear(part)
		} else {
			// The first field is reserved in EROFS. In an index it is the offset in the block, for bodies that lie behind
			// their inode in the layer.
			from := int64(block)<<blockBits + int64(le.Uint16(entry)) + int64(in)
			if _, errno := m.pread(int(le.Uint16(entry[2:])), part, from); errno != 0 {
				return 0, errno
			}
		}
		done += len(part)
	}
	return done, 0
}

// pread reads from a device: 0 is the file itself, the others are the layers. By pread and not from the map, so that a
// layer that is cut behind our back is an error for the reader, and not the death of the server.
func (m *Image) pread(device int, dst []byte, at int64) (int, syscall.Errno) {
	f := m.own
	if device > 0 {
		if device > len(m.devices) {
			return 0, syscall.EIO
		}
		f = m.devices[device-1]
	}
	for done := 0; done < len(dst); {
		n, err := unix.Pread(int(f.Fd()), dst[done:], at+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return 0, syscall.EIO
		}
		done += n
	}
	return len(dst), 0
}

// HasXattrs is false when no node has an extended attribute.
func (m *Image) HasXattrs() bool { return m.xattrs }

func (m *Image) xattrText(nid uint64) ([]byte, syscall.Errno) {
	n, errno := m.inode(nid)
	if errno != 0 {
		return nil, errno
	}
	return m.span(nid*slotSize+inodeSize, uint64(n.xattrSize())), 0
}

// GetXattr is one attribute's value, ENODATA when there is none of that name.
func (m *Image) GetXattr(nid uint64, name string) ([]byte, syscall.Errno) {
	b, errno := m.xattrText(nid)
	if errno != 0 {
		return nil, errno
	}
	var found []byte
	ok := false
	if err := eachXattr(b, func(index byte, n, v []byte) bool {
		p := prefixOf(index)
		if len(name) == len(p)+len(n) && strings.HasPrefix(name, p) && name[len(p):] == text(n) {
			found, ok = v, true
		}
		return !ok
	}); err != nil {
		return nil, syscall.EIO
	}
	if !ok {
		return nil, syscall.ENODATA
	}
	return found, 0
}

// ListXattr emits the names of a node's attributes.
func (m *Image) ListXattr(nid uint64, emit func(name string) bool) syscall.Errno {
	b, errno := m.xattrText(nid)
	if errno != 0 {
		return errno
	}
	if err := eachXattr(b, func(index byte, n, _ []byte) bool { return emit(prefixOf(index) + text(n)) }); err != nil {
		return syscall.EIO
	}
	return 0
}

// StatFS tells the size of the whole.
func (m *Image) StatFS(st *unix.Statfs_t) {
	*st = unix.Statfs_t{Type: superMagic, Bsize: blockSize, Frsize: blockSize, Namelen: maxName, Files: m.super.nodes}
	st.Blocks = uint64(m.super.blocks)
	for i := range m.devices {
		at := int(m.super.deviceSlotOff)*deviceSlot + i*deviceSlot
		st.Blocks += uint64(le.Uint32(m.meta[at+64:]))
	}
}
