package erofs

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// node is a file of the tree that is being written.
type node struct {
	mode     uint16
	uid, gid uint32
	mtime    int64
	nsec     uint32
	rdev     uint32
	size     uint64
	xattrs   map[string]string
	children map[string]*node // a folder's
	nlink    uint32           // counted when the folders are written
	offset   int64            // of its inode, once it has one
	target   string
}

func (n *node) isDir() bool { return n.mode&unix.S_IFMT == unix.S_IFDIR }

func newFolder() *node { return &node{mode: unix.S_IFDIR | 0o755} }

// put gives a folder an entry; of two of one name the later counts.
func (n *node) put(name string, c *node) {
	if n.children == nil {
		n.children = map[string]*node{}
	}
	n.children[name] = c
}

// builder writes one EROFS file. Space is given out from the front; inodes lie in blocks of their own, several to a
// block, between the blocks of bodies.
type builder struct {
	f      *os.File
	end    int64  // of the space given out
	meta   []byte // the block of inodes that is being filled
	metaAt int64
	nodes  uint64
	xattrs bool
	chunks bool
}

// deviceTable is where the table of other files lies: before all else, for the superblock has 16 bits for its place.
const deviceTable = blockSize

// newBuilder begins a file that points into so many others. What f held is dropped: space that is given out and not
// written reads as zeros.
func newBuilder(f *os.File, devices int) (*builder, error) {
	if err := f.Truncate(0); err != nil {
		return nil, err
	}
	return &builder{f: f, end: deviceTable + align(int64(devices)*deviceSlot, blockSize)}, nil
}

// body gives out space for n bytes in whole blocks.
func (b *builder) body(n int64) (int64, error) {
	at := b.end
	if n < 0 || at+n > math.MaxUint32*blockSize {
		return 0, fmt.Errorf("layer is larger than EROFS can address (16 TiB)")
	}
	b.end = align(at+n, blockSize)
	return at, nil
}

// inodeSpace gives out n bytes for an inode and what is behind it. Pieces of up to a block do not cross a block's end.
func (b *builder) inodeSpace(n int) (int64, error) {
	n = int(align(int64(n), slotSize))
	if n > blockSize {
		return b.body(int64(n))
	}
	if b.meta == nil || len(b.meta)+n > blockSize {
		if err := b.flush(); err != nil {
			return 0, err
		}
		at, err := b.body(blockSize)
		if err != nil {
			return 0, err
		}
		b.metaAt, b.meta = at, make([]byte, 0, blockSize)
	}
	at := b.metaAt + int64(len(b.meta))
	b.meta = b.meta[:len(b.meta)+n]
	return at, nil
}

func (b *builder) flush() error {
	if b.meta == nil {
		return nil
	}
	_, err := b.f.WriteAt(b.meta[:blockSize], b.metaAt)
	b.meta = nil
	return err
}

// put writes at a place that was given out.
func (b *builder) put(p []byte, at int64) error {
	if b.meta != nil && at >= b.metaAt && at < b.metaAt+blockSize {
		copy(b.meta[at-b.metaAt:blockSize], p)
		return nil
	}
	_, err := b.f.WriteAt(p, at)
	return err
}

// write gives a node that is no folder its inode, with tail behind it.
func (b *builder) write(n *node, layout uint16, u uint32, tail []byte) error {
	x, count, err := encodeXattrs(n.xattrs)
	if err != nil {
		return err
	}
	b.xattrs = b.xattrs || count > 0
	room := inodeSize + len(x)
	if layout == layoutChunk {
		room = int(align(int64(room), chunkEntry))
	}
	at, err := b.inodeSpace(room + len(tail))
	if err != nil {
		return err
	}
	b.nodes++
	buf := make([]byte, room+len(tail))
	in := inode{layout: layout, xattrCount: count, mode: n.mode, size: n.size, u: u, ino: uint32(b.nodes), uid: n.uid, gid: n.gid,
		mtime: n.mtime, nsec: n.nsec, nlink: 1}
	in.encode(buf)
	copy(buf[inodeSize:], x)
	copy(buf[room:], tail)
	n.offset = at
	return b.put(buf, at)
}

// writeSmall gives an inode to what needs no blocks: devices, fifos, sockets, symlinks, small files.
func (b *builder) writeSmall(n *node, body []byte) error {
	switch n.mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFLNK:
		n.size = uint64(len(body))
		x, _, err := encodeXattrs(n.xattrs)
		if err != nil {
			return err
		}
		if len(body) == 0 {
			return b.write(n, layoutPlain, 0, nil)
		}
		if inodeSize+len(x)+len(body) > blockSize { // it has to end in the block in which it begins
			at, err := b.body(int64(len(body)))
			if err != nil {
				return err
			}
			if err := b.put(body, at); err != nil {
				return err
			}
			return b.write(n, layoutPlain, uint32(at>>blockBits), nil)
		}
		return b.write(n, layoutInline, 0, body)
	default:
		return b.write(n, layoutPlain, n.rdev, nil)
	}
}

// dirent is an entry of a folder on its way to disk.
type dirent struct {
	name string
	n    *node
}

// finish writes the folders, the true numbers of links, and the superblock. devices are the other files' sizes in
// blocks.
func (b *builder) finish(root *node, devices []uint32, mtime int64) error {
	type folder struct {
		n, parent *node
		entries   []dirent
		data      int64 // where its dirents go
		size      int
		inline    bool
		x         []byte
		xcount    uint16
	}
	var folders []*folder
	var links []*node
	// First every folder gets its place, for its parent and its children name it by that.
	queue := []*folder{{n: root, parent: root}}
	for len(queue) > 0 {
		f := queue[0]
		queue = queue[1:]
		folders = append(folders, f)
		f.entries = append(make([]dirent, 0, len(f.n.children)+2), dirent{".", f.n}, dirent{"..", f.parent})
		f.n.nlink = 2
		for name, c := range f.n.children {
			f.entries = append(f.entries, dirent{name, c})
			if c.isDir() {
				f.n.nlink++
			}
		}
		slices.SortFunc(f.entries, func(a, b dirent) int { return cmp.Compare(a.name, b.name) })
		f.size = direntsSize(f.entries)
		var err error
		if f.x, f.xcount, err = encodeXattrs(f.n.xattrs); err != nil {
			return err
		}
		b.xattrs = b.xattrs || f.xcount > 0
		room := inodeSize + len(f.x)
		if f.n == root {
			if f.n.offset = rootOffset; rootOffset+room > blockSize {
				return fmt.Errorf("%w: %d bytes of them on the root folder", errXattr, len(f.x))
			}
		} else {
			if f.inline = room+f.size <= blockSize; f.inline {
				room += f.size
			}
			if f.n.offset, err = b.inodeSpace(room); err != nil {
				return err
			}
		}
		if f.inline {
			f.data = f.n.offset + int64(inodeSize+len(f.x))
		} else if f.data, err = b.body(int64(f.size)); err != nil {
			return err
		}
		for _, e := range f.entries {
			switch {
			case e.name == "." || e.name == "..":
			case e.n.isDir():
				queue = append(queue, &folder{n: e.n, parent: f.n})
			default:
				if e.n.nlink++; e.n.nlink == 2 {
					links = append(links, e.n)
				}
			}
		}
	}
	for _, f := range folders {
		b.nodes++
		in := inode{layout: layoutPlain, xattrCount: f.xcount, mode: f.n.mode, size: uint64(f.size), ino: uint32(b.nodes), uid: f.n.uid, gid: f.n.gid,
			mtime: f.n.mtime, nsec: f.n.nsec, nlink: f.n.nlink}
		if f.inline {
			in.layout = layoutInline
		} else {
			in.u = uint32(f.data >> blockBits)
		}
		head := make([]byte, inodeSize, inodeSize+len(f.x))
		in.encode(head)
		if err := b.put(append(head, f.x...), f.n.offset); err != nil {
			return err
		}
		if err := b.put(encodeDirents(f.entries, f.size), f.data); err != nil {
			return err
		}
	}
	for _, n := range links {
		if err := b.put(le.AppendUint32(nil, n.nlink), n.offset+nlinkOffset); err != nil {
			return err
		}
	}
	if err := b.flush(); err != nil {
		return err
	}
	s := super{rootNid: rootOffset / slotSize, nodes: b.nodes, mtime: mtime, name: without}
	if b.xattrs {
		s.name = withXattrs
	}
	if b.chunks || len(devices) > 0 {
		s.incompat |= incompatChunked
	}
	if len(devices) > 0 {
		s.incompat |= incompatDevices
		table := make([]byte, len(devices)*deviceSlot)
		for i, blocks := range devices {
			le.PutUint32(table[i*deviceSlot+64:], blocks)
		}
		if err := b.put(table, deviceTable); err != nil {
			return err
		}
		s.devices, s.deviceSlotOff = uint16(len(devices)), deviceTable/deviceSlot
	}
	s.blocks = uint32(b.end >> blockBits)
	if err := b.f.Truncate(b.end); err != nil {
		return err
	}
	_, err := b.f.WriteAt(s.encode(), superOffset)
	return err
}

// direntsSize is what a folder's entries take: blocks of dirents with their names behind them, the last one cut.
func direntsSize(entries []dirent) int {
	full, used := 0, 0
	for _, e := range entries {
		n := direntSize + len(e.name)
		if used+n > blockSize {
			full, used = full+blockSize, 0
		}
		used += n
	}
	return full + used
}

func encodeDirents(entries []dirent, size int) []byte {
	out := make([]byte, size)
	for start := 0; len(entries) > 0; start += blockSize {
		count, used := 0, 0
		for count < len(entries) && used+direntSize+len(entries[count].name) <= blockSize {
			used += direntSize + len(entries[count].name)
			count++
		}
		nameAt := count * direntSize
		for i, e := range entries[:count] {
			d := out[start+i*direntSize:]
			le.PutUint64(d, uint64(e.n.offset/slotSize))
			le.PutUint16(d[8:], uint16(nameAt))
			d[10] = fileType(e.n.mode)
			nameAt += copy(out[start+nameAt:], e.name)
		}
		entries = entries[count:]
	}
	return out
}
