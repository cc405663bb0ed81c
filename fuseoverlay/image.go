package fuseoverlay

import (
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// imageFS answers FUSE's requests from a tree. What it does not define answers ENOSYS, after which the kernel does not
// ask again (OPEN, OPENDIR, FLUSH, ACCESS).
type imageFS struct {
	fuse.RawFileSystem
	tree       Tree
	uids, gids idMap
	xattrs     bool
	stats      sync.Pool // *unix.Stat_t: one that is handed to an interface would be allocated each time
	reads      sync.Pool // *readResult
}

func newImageFS(tree Tree, opt ImageOptions) *imageFS {
	f := &imageFS{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		tree:          tree, uids: newIDMap(opt.UIDs), gids: newIDMap(opt.GIDs), xattrs: tree.HasXattrs(),
	}
	f.stats.New = func() any { return new(unix.Stat_t) }
	f.reads.New = func() any { return &readResult{pool: &f.reads} }
	return f
}

// readResult is a read's answer, used again for the next one.
type readResult struct {
	pool *sync.Pool
	data []byte
}

func (r *readResult) Bytes([]byte) ([]byte, fuse.Status) { return r.data, fuse.OK }
func (r *readResult) Size() int                          { return len(r.data) }
func (r *readResult) Done()                              { r.data = nil; r.pool.Put(r) }

// FUSE's root is node 1; every other node is the tree's own plus one.
func (f *imageFS) node(fuseNode uint64) uint64 {
	if fuseNode == fuse.FUSE_ROOT_ID {
		return f.tree.Root()
	}
	return fuseNode - 1
}

func (f *imageFS) fuseNode(node uint64) uint64 {
	if node == f.tree.Root() {
		return fuse.FUSE_ROOT_ID
	}
	return node + 1
}

func (f *imageFS) String() string { return "moss" }

func (f *imageFS) attr(node uint64, a *fuse.Attr) syscall.Errno {
	st := f.stats.Get().(*unix.Stat_t)
	defer f.stats.Put(st)
	*st = unix.Stat_t{}
	if errno := f.tree.Stat(node, st); errno != 0 {
		return errno
	}
	// The node is the inode number, here as in a listing, so that the two always agree.
	a.Ino, a.Size, a.Blocks = node, uint64(st.Size), uint64(st.Blocks)
	a.Atime, a.Atimensec = uint64(st.Atim.Sec), uint32(st.Atim.Nsec)
	a.Mtime, a.Mtimensec = uint64(st.Mtim.Sec), uint32(st.Mtim.Nsec)
	a.Ctime, a.Ctimensec = uint64(st.Ctim.Sec), uint32(st.Ctim.Nsec)
	a.Mode, a.Nlink, a.Rdev, a.Blksize = st.Mode, uint32(st.Nlink), uint32(st.Rdev), uint32(st.Blksize)
	var uidMapped, gidMapped bool
	a.Uid, uidMapped = f.uids.host(st.Uid)
	a.Gid, gidMapped = f.gids.host(st.Gid)
	if !uidMapped {
		a.Mode &^= syscall.S_ISUID // it must not become a door to the identity that stands in for the owner
	}
	if !gidMapped && a.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		a.Mode &^= syscall.S_ISGID
	}
	return 0
}

func (f *imageFS) entry(node uint64, out *fuse.EntryOut) syscall.Errno {
	out.NodeId, out.EntryValid, out.AttrValid = f.fuseNode(node), forever, forever
	return f.attr(node, &out.Attr)
}

// Open refuses once, and the kernel opens files by itself from then on.
func (f *imageFS) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

func (f *imageFS) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	node, errno := f.tree.Lookup(f.node(h.NodeId), name)
	if errno == syscall.ENOENT {
		out.NodeId, out.EntryValid = 0, forever // a name that is not there stays so: the kernel may remember that too
		return fuse.OK
	}
	if errno == 0 {
		errno = f.entry(node, out)
	}
	return fuse.Status(errno)
}

// Flush would be asked for at every close of a file, for go-fuse's default is to agree.
func (f *imageFS) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

func (f *imageFS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.AttrValid = forever
	return fuse.Status(f.attr(f.node(in.NodeId), &out.Attr))
}

func (f *imageFS) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	s, errno := f.tree.Readlink(f.node(h.NodeId))
	return unsafe.Slice(unsafe.StringData(s), len(s)), fuse.Status(errno)
}

func (f *imageFS) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n, errno := f.tree.Read(f.node(in.NodeId), buf, int64(in.Offset))
	if errno != 0 {
		return nil, fuse.Status(errno)
	}
	r := f.reads.Get().(*readResult)
	r.data = buf[:n]
	return r, fuse.OK
}

func (f *imageFS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.readDir(in, func(name string, node uint64, mode uint32, next uint64) bool {
		return out.AddDirEntry(fuse.DirEntry{Name: name, Ino: node, Mode: mode, Off: next})
	})
}

func (f *imageFS) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.readDir(in, func(name string, node uint64, mode uint32, next uint64) bool {
		e := out.AddDirLookupEntry(fuse.DirEntry{Name: name, Ino: node, Mode: mode, Off: next})
		if e == nil {
			return false
		}
		if name != "." && name != ".." {
			// A broken entry is listed without its attributes: node 0 makes the kernel look it up, and fail there.
			if f.entry(node, e) != 0 {
				*e = fuse.EntryOut{}
			}
		}
		return true
	})
}

// readDir emits "." and ".." and then the tree's entries, whose cookies are moved up by two for that.
func (f *imageFS) readDir(in *fuse.ReadIn, add func(name string, node uint64, mode uint32, next uint64) bool) fuse.Status {
	dir := f.node(in.NodeId)
	cookie := in.Offset
	for i, name := range []string{".", ".."} {
		if cookie > uint64(i) {
			continue
		}
		// The kernel knows what ".." is; a folder's own number stands for it here.
		if !add(name, dir, syscall.S_IFDIR, uint64(i)+1) {
			return fuse.OK
		}
		cookie = uint64(i) + 1
	}
	return fuse.Status(f.tree.ReadDir(dir, cookie-2, func(name string, node uint64, mode uint32, next uint64) bool {
		return add(name, node, mode, next+2)
	}))
}

// overlayXattr is what the kernel's overlay keeps for itself on its layers. An image that carries such names would
// steer the overlay that is mounted on it (whiteouts, redirects), so they are not shown.
const overlayXattr = "user.overlay."

func (f *imageFS) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if strings.HasPrefix(name, overlayXattr) {
		return 0, fuse.ENODATA
	}
	v, errno := f.tree.GetXattr(f.node(h.NodeId), name)
	if errno != 0 {
		return 0, fuse.Status(errno)
	}
	if len(dest) < len(v) {
		return uint32(len(v)), fuse.ERANGE
	}
	return uint32(copy(dest, v)), fuse.OK
}

func (f *imageFS) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	var size, used int
	errno := f.tree.ListXattr(f.node(h.NodeId), func(name string) bool {
		if strings.HasPrefix(name, overlayXattr) {
			return true
		}
		if size += len(name) + 1; size <= len(dest) {
			used += copy(dest[used:], name)
			dest[used] = 0
			used++
		}
		return true
	})
	if errno != 0 {
		return 0, fuse.Status(errno)
	}
	if size > len(dest) {
		return uint32(size), fuse.ERANGE
	}
	return uint32(size), fuse.OK
}

func (f *imageFS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	var st unix.Statfs_t
	f.tree.StatFS(&st)
	out.Blocks, out.Bfree, out.Bavail, out.Files, out.Ffree = st.Blocks, st.Bfree, st.Bavail, st.Files, st.Ffree
	out.Bsize, out.NameLen, out.Frsize = uint32(st.Bsize), uint32(st.Namelen), uint32(st.Frsize)
	return fuse.OK
}
