package fuseoverlay

import (
	"errors"
	"fmt"
	"io"
	"log"
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// ImageOptions say how a tree is shown.
type ImageOptions struct {
	UIDs, GIDs []specs.LinuxIDMapping // container id -> id of the mounting user namespace; empty: the same
	Debug      bool
}

// Server serves a tree until it is closed. It owns the mount.
type Server struct {
	dir string
	srv *fuse.Server
}

// The longest time that FUSE can tell: nothing in an image ever changes.
const forever = 1 << 32

const maxRead = 1 << 20

// Serve mounts tree on dir, read-only, and serves it until Close. The caller has CAP_SYS_ADMIN in its user namespace
// and a mount namespace that belongs to it.
func Serve(tree Tree, dir string, opt ImageOptions) (*Server, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, deviceError(err)
	}
	fs := &imageFS{RawFileSystem: fuse.NewDefaultRawFileSystem(), tree: tree, uids: newIDMap(opt.UIDs), gids: newIDMap(opt.GIDs), xattrs: tree.HasXattrs()}
	// Not nosuid: setuid programs of the image must work. The kernel adds nodev by itself in a user namespace.
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,max_read=%d", fd, maxRead)
	if err := unix.Mount("moss", dir, "fuse.moss", unix.MS_RDONLY|unix.MS_NODEV, data); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("mount the image on %s: %w", dir, err)
	}
	srv, err := fuse.NewServer(fs, fmt.Sprintf("/dev/fd/%d", fd), &fuse.MountOptions{
		AllowOther:               true,
		MaxBackground:            64,
		MaxWrite:                 maxRead,
		DisableXAttrs:            !fs.xattrs,
		EnableSymlinkCaching:     true,
		ExplicitDataCacheControl: true,
		DisableSplice:            true, // measured: no gain over pread, and simpler
		// Passthrough is refused without root, and would cost one of the kernel's two levels of stacking.
		DisabledCapabilities: fuse.CAP_PASSTHROUGH,
		ExtraCapabilities:    fuse.CAP_NO_OPENDIR_SUPPORT,
		Debug:                opt.Debug,
		Logger:               log.New(io.Discard, "", 0),
		PanicHandler:         func(any) fuse.Status { return fuse.EIO },
	})
	if err != nil {
		_ = unix.Unmount(dir, unix.MNT_DETACH)
		unix.Close(fd)
		return nil, fmt.Errorf("serve the image: %w", err)
	}
	go srv.Serve()
	return &Server{dir: dir, srv: srv}, nil
}

func deviceError(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("open /dev/fuse: %w; an administrator can load it with: modprobe fuse", err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("open /dev/fuse: %w; an administrator can open it to users with: chmod 666 /dev/fuse", err)
	}
	return fmt.Errorf("open /dev/fuse: %w", err)
}

// Close unmounts the tree and waits for the server to end. Files that are still open keep the mount alive, out of
// sight, until they are closed.
func (s *Server) Close() error {
	if err := unix.Unmount(s.dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", s.dir, err)
	}
	return nil
}

// Wait returns when the kernel has let go of the mount.
func (s *Server) Wait() { s.srv.Wait() }

// imageFS answers FUSE's requests from a tree. What it does not define answers ENOSYS, after which the kernel does not
// ask again (OPEN, OPENDIR, FLUSH, ACCESS).
type imageFS struct {
	fuse.RawFileSystem // answers ENOSYS to everything else
	tree               Tree
	uids, gids         idMap
	xattrs             bool
}

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
	var st unix.Stat_t
	if errno := f.tree.Stat(node, &st); errno != 0 {
		return errno
	}
	a.Ino, a.Size, a.Blocks = st.Ino, uint64(st.Size), uint64(st.Blocks)
	a.Atime, a.Atimensec = uint64(st.Atim.Sec), uint32(st.Atim.Nsec)
	a.Mtime, a.Mtimensec = uint64(st.Mtim.Sec), uint32(st.Mtim.Nsec)
	a.Ctime, a.Ctimensec = uint64(st.Ctim.Sec), uint32(st.Ctim.Nsec)
	a.Mode, a.Nlink, a.Rdev, a.Blksize = st.Mode, uint32(st.Nlink), uint32(st.Rdev), uint32(st.Blksize)
	a.Uid, a.Gid = f.uids.host(st.Uid), f.gids.host(st.Gid)
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
	return fuse.ReadResultData(buf[:n]), fuse.OK
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
			// An entry that cannot be told of is listed without its attributes: node 0 makes the kernel look it up.
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

func (f *imageFS) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
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
