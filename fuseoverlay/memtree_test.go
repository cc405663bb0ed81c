package fuseoverlay

import (
	"sort"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// memTree is a tree in memory. Files get their content from a function, so that they can be larger than memory.
type memTree struct {
	nodes  []*memNode // by id - 1
	xattrs bool
}

type memNode struct {
	id     uint64
	st     unix.Stat_t
	read   func(dst []byte, off int64)
	target string
	names  []string
	kids   map[string]*memNode
	xattr  map[string]string
}

func newMemTree() *memTree {
	t := &memTree{}
	// The root is not node 1, to try the translation of FUSE's root.
	t.node(unix.S_IFREG)
	root := t.node(unix.S_IFDIR | 0o755)
	root.st.Mtim.Sec = 1000
	return t
}

func (t *memTree) node(mode uint32) *memNode {
	n := &memNode{id: uint64(len(t.nodes) + 1)}
	n.st = unix.Stat_t{Ino: n.id, Mode: mode, Nlink: 1, Blksize: 4096}
	if mode&unix.S_IFMT == unix.S_IFDIR {
		n.kids, n.st.Nlink = map[string]*memNode{}, 2
	}
	t.nodes = append(t.nodes, n)
	return n
}

// add makes a node and, where they are missing, the folders above it.
func (t *memTree) add(path string, mode uint32) *memNode {
	n := t.node(mode)
	t.link(path, n)
	return n
}

func (t *memTree) link(path string, n *memNode) {
	dir := t.nodes[1]
	parts := strings.Split(path, "/")
	for _, p := range parts[:len(parts)-1] {
		next := dir.kids[p]
		if next == nil {
			next = t.node(unix.S_IFDIR | 0o755)
			dir.insert(p, next)
		}
		dir = next
	}
	dir.insert(parts[len(parts)-1], n)
}

func (n *memNode) insert(name string, kid *memNode) {
	n.kids[name] = kid
	i := sort.SearchStrings(n.names, name)
	n.names = append(n.names, "")
	copy(n.names[i+1:], n.names[i:])
	n.names[i] = name
}

func (t *memTree) file(path, content string, perm uint32) *memNode {
	n := t.add(path, unix.S_IFREG|perm)
	n.st.Size = int64(len(content))
	n.read = func(dst []byte, off int64) { copy(dst, content[off:]) }
	return n
}

func (t *memTree) Root() uint64 { return 2 }

func (t *memTree) Lookup(dir uint64, name string) (uint64, syscall.Errno) {
	d := t.nodes[dir-1]
	if d.kids == nil {
		return 0, unix.ENOTDIR
	}
	if name == "panic" {
		panic("a tree that is broken")
	}
	if n := d.kids[name]; n != nil {
		return n.id, 0
	}
	return 0, unix.ENOENT
}

func (t *memTree) Stat(node uint64, st *unix.Stat_t) syscall.Errno {
	*st = t.nodes[node-1].st
	return 0
}

func (t *memTree) ReadDir(dir, cookie uint64, emit func(string, uint64, uint32, uint64) bool) syscall.Errno {
	d := t.nodes[dir-1]
	for i := int(cookie); i < len(d.names); i++ {
		kid := d.kids[d.names[i]]
		if !emit(d.names[i], kid.id, kid.st.Mode, uint64(i)+1) {
			break
		}
	}
	return 0
}

func (t *memTree) Readlink(node uint64) (string, syscall.Errno) { return t.nodes[node-1].target, 0 }

func (t *memTree) Read(node uint64, dst []byte, off int64) (int, syscall.Errno) {
	n := t.nodes[node-1]
	if off >= n.st.Size {
		return 0, 0
	}
	dst = dst[:min(int64(len(dst)), n.st.Size-off)]
	clear(dst)
	n.read(dst, off)
	return len(dst), 0
}

func (t *memTree) HasXattrs() bool { return t.xattrs }

func (t *memTree) GetXattr(node uint64, name string) ([]byte, syscall.Errno) {
	v, ok := t.nodes[node-1].xattr[name]
	if !ok {
		return nil, unix.ENODATA
	}
	return []byte(v), 0
}

func (t *memTree) ListXattr(node uint64, emit func(string) bool) syscall.Errno {
	for k := range t.nodes[node-1].xattr {
		if !emit(k) {
			break
		}
	}
	return 0
}

func (t *memTree) StatFS(st *unix.Statfs_t) {
	st.Bsize, st.Frsize, st.Namelen, st.Blocks, st.Files = 4096, 4096, 255, 77, uint64(len(t.nodes))
}
