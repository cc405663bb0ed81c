package erofs

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Merge writes the index for a stack of layers, the bottom first: the tree that a container sees, without any body of
// a file. dst is written from its start. layers may be empty: the image is one empty folder then.
func Merge(dst *os.File, layers []string) error {
	if len(layers) > maxDevices {
		return fmt.Errorf("an image of %d layers is more than an index can hold (%d)", len(layers), maxDevices)
	}
	b, err := newBuilder(dst, len(layers))
	if err != nil {
		return err
	}
	m := &merger{b: b, made: map[place]*node{}, seen: map[place]bool{}}
	var blocks []uint32
	var dirs []place
	for i, p := range layers {
		l, err := OpenLayer(p)
		if err != nil {
			return err
		}
		defer l.Close()
		m.layers = append(m.layers, l)
		blocks = append(blocks, l.super.blocks)
		dirs = append([]place{{i, l.Root()}}, dirs...) // the top first
	}
	root := newFolder()
	if len(dirs) > 0 {
		m.todo = []union{{root, dirs}}
	}
	// By a list and not by recursion: a layer may be thousands of folders deep.
	for len(m.todo) > 0 {
		u := m.todo[len(m.todo)-1]
		m.todo = m.todo[:len(m.todo)-1]
		if err := m.folder(u.n, u.places); err != nil {
			return err
		}
	}
	return m.b.finish(root, blocks, 0)
}

type merger struct {
	b      *builder
	layers []*Image
	made   map[place]*node // files: the names of one file stay one file
	seen   map[place]bool  // folders, so that a damaged layer cannot lead round in a circle
	todo   []union
}

// place is a node in a layer.
type place struct {
	layer int
	nid   uint64
}

// union is a folder of the index that is to be filled with what the folders at places have together.
type union struct {
	n      *node
	places []place // the top one first
}

// folder fills n with what the folders at places, the top one first, have together.
func (m *merger) folder(n *node, places []place) error {
	// A folder that its layer only implies, by something in it, leaves a lower one as it is.
	top := places[0]
	for _, p := range places {
		in, errno := m.layers[p.layer].inode(p.nid)
		if errno == 0 && !in.implied() {
			top = p
			break
		}
	}
	if err := m.dress(n, top); err != nil {
		return err
	}
	type entry struct {
		places []place // those that are folders all, or one that is something else
		done   bool    // nothing below can be seen
	}
	found := map[string]*entry{}
	var names []string
	for _, p := range places {
		l := m.layers[p.layer]
		if m.seen[p] {
			return fmt.Errorf("%s: %w: one folder in two places", l.name, ErrFormat)
		}
		m.seen[p] = true
		var failed error
		errno := l.ReadDir(p.nid, 0, func(name string, nid uint64, mode uint32, _ uint64) bool {
			e := found[name]
			if e != nil && e.done {
				return true
			}
			isDir := mode == unix.S_IFDIR
			if e == nil {
				e = &entry{}
				name = strings.Clone(name)
				found[name] = e
				names = append(names, name)
				if !isDir {
					e.done = true
					in, errno := l.inode(nid)
					if errno != 0 {
						failed = errno
						return false
					}
					if in.mode&unix.S_IFMT == unix.S_IFCHR && in.u == 0 {
						return true // a whiteout
					}
					e.places = []place{{p.layer, nid}}
					return true
				}
			} else if !isDir {
				e.done = true // a file below a folder is hidden, and all that is below it
				return true
			}
			e.places = append(e.places, place{p.layer, nid})
			if _, errno := l.GetXattr(nid, opaqueName); errno == 0 {
				e.done = true
			}
			return true
		})
		if errno != 0 || failed != nil {
			return fmt.Errorf("%s: read a folder: %w", l.name, orErr(failed, errno))
		}
		if _, errno := l.GetXattr(p.nid, opaqueName); errno == 0 {
			break // the image's root can be opaque too; below it, places ends here anyway
		}
	}
	for _, name := range names {
		e := found[name]
		if len(e.places) == 0 {
			continue
		}
		first := e.places[0]
		in, errno := m.layers[first.layer].inode(first.nid)
		if errno != 0 {
			return fmt.Errorf("%s: entry %q: %w", m.layers[first.layer].name, name, errno)
		}
		if in.mode&unix.S_IFMT == unix.S_IFDIR {
			c := newFolder()
			n.put(name, c)
			m.todo = append(m.todo, union{c, e.places})
			continue
		}
		c, err := m.file(first, &in)
		if err != nil {
			return fmt.Errorf("entry %q: %w", name, err)
		}
		n.put(name, c)
	}
	return nil
}

func orErr(err error, errno syscall.Errno) error {
	if err != nil {
		return err
	}
	return errno
}

// dress copies the metadata of a layer's node.
func (m *merger) dress(n *node, p place) error {
	l := m.layers[p.layer]
	in, errno := l.inode(p.nid)
	if errno != 0 {
		return fmt.Errorf("%s: node %d: %w", l.name, p.nid, errno)
	}
	n.mode, n.uid, n.gid, n.mtime, n.nsec = in.mode, in.uid, in.gid, in.mtime, in.nsec
	if in.implied() {
		n.nsec = 0
	}
	text, errno := l.xattrText(p.nid)
	if errno != 0 {
		return errno
	}
	return eachXattr(text, func(index byte, name, value []byte) bool {
		full := prefixOf(index) + string(name)
		if full != opaqueName {
			if n.xattrs == nil {
				n.xattrs = map[string]string{}
			}
			n.xattrs[full] = string(value)
		}
		return true
	})
}

// file writes what is no folder, once for all its names.
func (m *merger) file(p place, in *inode) (*node, error) {
	if n, ok := m.made[p]; ok {
		return n, nil
	}
	n := &node{}
	m.made[p] = n
	if err := m.dress(n, p); err != nil {
		return nil, err
	}
	l := m.layers[p.layer]
	switch in.mode & unix.S_IFMT {
	case unix.S_IFLNK:
		target, errno := l.Readlink(p.nid)
		if errno != 0 {
			return nil, errno
		}
		return n, m.b.writeSmall(n, []byte(target))
	case unix.S_IFREG:
		n.size = in.size
		if in.size == 0 {
			return n, m.b.write(n, layoutPlain, 0, nil)
		}
		bits, table, err := m.pointers(p, in)
		if err != nil {
			return nil, err
		}
		return n, m.b.write(n, layoutChunk, uint32(bits-blockBits)|chunkIndexes, table)
	default:
		n.rdev = in.u
		return n, m.b.write(n, layoutPlain, in.u, nil)
	}
}

// pointers is the table of chunks for a file whose body is in a layer. A body in one piece is one chunk. One that lies
// behind its inode begins in mid-block: the entry's first field, which EROFS reserves, then holds the offset. (The
// kernel would ignore it; an index is for this package's reader.)
func (m *merger) pointers(p place, in *inode) (bits int, table []byte, err error) {
	l := m.layers[p.layer]
	entry := func(offset uint16, block uint32) {
		table = le.AppendUint16(table, offset)
		table = le.AppendUint16(table, uint16(p.layer+1))
		table = le.AppendUint32(table, block)
	}
	if in.layout == layoutChunk {
		bits = blockBits + int(in.u&0x1f)
		chunks := (in.size + 1<<bits - 1) >> bits
		have := l.span(uint64(align(int64(behind(p.nid, in)), chunkEntry)), chunks*chunkEntry)
		if have == nil {
			return 0, nil, fmt.Errorf("%s: %w: table of chunks", l.name, ErrFormat)
		}
		for ; len(have) > 0; have = have[chunkEntry:] {
			entry(0, le.Uint32(have[4:]))
		}
		return bits, table, nil
	}
	for bits = blockBits; in.size>>bits > 0; bits++ {
	}
	if bits-blockBits > 31 {
		return 0, nil, fmt.Errorf("%s: %w: a file of %d bytes", l.name, ErrFormat, in.size)
	}
	if in.layout == layoutInline {
		at := behind(p.nid, in)
		entry(uint16(at%blockSize), uint32(at>>blockBits))
	} else {
		entry(0, in.u)
	}
	return bits, table, nil
}
