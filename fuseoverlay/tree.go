package fuseoverlay

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Tree is a read-only file tree. Its methods are called concurrently and must not allocate on the hot path.
// Node ids are stable for the life of the tree, and never 0. Owners are the container's ids.
type Tree interface {
	Root() uint64
	// Lookup finds a name in a folder: ENOENT, ENOTDIR.
	Lookup(dir uint64, name string) (node uint64, errno syscall.Errno)
	// Stat fills in Ino, Mode, Nlink, Uid, Gid, Rdev, Size, Blocks, Blksize and the times.
	Stat(node uint64, st *unix.Stat_t) syscall.Errno
	// ReadDir emits the entries of a folder, without "." and "..", from a cookie on: 0 is the start, and the cookie
	// handed out with an entry resumes behind it. It ends when emit returns false.
	ReadDir(dir uint64, cookie uint64, emit func(name string, node uint64, mode uint32, next uint64) bool) syscall.Errno
	Readlink(node uint64) (string, syscall.Errno)
	// Read reads file content; holes are zeros, and it is short only at the end of the file.
	Read(node uint64, dst []byte, off int64) (int, syscall.Errno)
	// HasXattrs is false when no node of the tree has any extended attribute.
	HasXattrs() bool
	GetXattr(node uint64, name string) ([]byte, syscall.Errno) // ENODATA
	ListXattr(node uint64, emit func(name string) bool) syscall.Errno
	StatFS(st *unix.Statfs_t)
}
